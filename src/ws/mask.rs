//! Masking (RFC 6455, section 5.3): every byte is combined with one of the four of the masking key, in turn.
//!
//! [`Receiver`](super::Receiver) and [`encode`](super::encode) do it themselves. These functions are for payloads that are
//! written behind a [`Header`](super::Header) of the caller's own.

/// Masks or unmasks `payload` in place; it is the same operation.
///
/// `key` belongs to the first byte of `payload`. In the middle of a frame, [`rotate`] it first.
#[inline(always)]
pub fn apply(key: [u8; 4], payload: &mut [u8]) {
    let narrow = u32::from_ne_bytes(key);
    let wide = u64::from(narrow) << 32 | u64::from(narrow);
    // A loop has to be set up before it is fast: what is short is done in steps, each half as long as the one before.
    if payload.len() >= 128 {
        return apply_long(key, wide, payload);
    }
    let rest = step::<64>(wide, payload);
    let rest = step::<32>(wide, rest);
    let rest = step::<16>(wide, rest);
    let rest = step::<8>(wide, rest);
    apply_last(key, rest);
}

/// Masks less than eight bytes.
#[inline(always)]
fn apply_last(key: [u8; 4], payload: &mut [u8]) {
    let (halves, rest) = payload.as_chunks_mut::<4>();
    if let [half, ..] = halves {
        *half = (u32::from_ne_bytes(*half) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// Masks the first `N` bytes, if there are so many, and returns the rest.
#[inline(always)]
fn step<const N: usize>(wide: u64, payload: &mut [u8]) -> &mut [u8] {
    if payload.len() < N {
        return payload;
    }
    let (block, rest) = payload.split_at_mut(N);
    for word in block.as_chunks_mut::<8>().0 {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest
}

#[inline(never)]
fn apply_long(key: [u8; 4], wide: u64, mut payload: &mut [u8]) {
    while payload.len() >= 256 {
        payload = step::<256>(wide, payload);
    }
    apply(key, step::<128>(wide, payload));
}

/// Appends `payload` to `out`, masked with `key`.
pub fn apply_copy(key: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(payload.len());
    // A block is masked while the copy is still in the first-level cache. Its size is a multiple of the key's.
    for block in payload.chunks(4096) {
        let start = out.len();
        out.extend_from_slice(block);
        apply(key, &mut out[start..]);
    }
}

/// The key for the byte that lies `offset` bytes behind the one that `key` belongs to.
#[inline]
pub fn rotate(mut key: [u8; 4], offset: usize) -> [u8; 4] {
    key.rotate_left(offset % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// Section 5.3, as it is written there.
    fn naive(key: [u8; 4], payload: &[u8]) -> Vec<u8> {
        payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect()
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + 3) as u8).collect()
    }

    #[test]
    fn every_length_at_every_offset_is_masked_as_the_rfc_says() {
        let sample = sample(100);
        for start in 0..16 {
            for end in start..sample.len() {
                let mut copy = sample.clone();
                apply(KEY, &mut copy[start..end]);
                assert_eq!(copy[start..end], naive(KEY, &sample[start..end]));
                assert_eq!((&copy[..start], &copy[end..]), (&sample[..start], &sample[end..]));
            }
        }
    }

    #[test]
    fn a_rotated_key_goes_on_in_the_middle() {
        let sample = sample(64);
        let expected = naive(KEY, &sample);
        for first in 0..=sample.len() {
            for second in first..=sample.len() {
                let mut copy = sample.clone();
                apply(KEY, &mut copy[..first]);
                let key = rotate(KEY, first);
                apply(key, &mut copy[first..second]);
                apply(rotate(key, second - first), &mut copy[second..]);
                assert_eq!(copy, expected);
            }
        }
    }

    #[test]
    fn a_masked_copy_is_appended() {
        for len in [0, 1, 7, 8, 9, 4095, 4096, 4097, 10_000] {
            let sample = sample(len);
            let mut out = b"before".to_vec();
            apply_copy(KEY, &sample, &mut out);
            assert_eq!(out[..6], *b"before");
            assert_eq!(out[6..], naive(KEY, &sample));
        }
    }
}
