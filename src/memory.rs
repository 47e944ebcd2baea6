//! Memory that grows by what a peer sends: it is asked for, and where there is none, that peer's link ends and no other.
//!
//! What is small is not asked for, here and in the libraries beneath, and an allocation that fails without being asked for ends the
//! process. That is why a large one is only taken where something is left behind it.

use std::hint::black_box;

/// There is no memory for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OutOfMemory;

/// From this size on, what is taken has to leave some behind.
const LARGE: usize = 64 * 1024;
/// So much has to be left behind what is large: what a turn needs in small pieces, with a receive buffer and a handshake of TLS.
const LEFT: usize = 1024 * 1024;

/// Makes room for `more` bytes behind those that are there, and for as many again as that, as `Vec` does.
#[inline]
pub(crate) fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<(), OutOfMemory> {
    if more <= bytes.capacity() - bytes.len() {
        return Ok(());
    }
    bytes.try_reserve(more).map_err(|_| OutOfMemory)?;
    leaves_some(bytes.capacity())
}

/// Makes room for `more` bytes and no others.
pub(crate) fn reserve_exact(bytes: &mut Vec<u8>, more: usize) -> Result<(), OutOfMemory> {
    bytes.try_reserve_exact(more).map_err(|_| OutOfMemory)?;
    leaves_some(more)
}

/// The same for text.
pub(crate) fn reserve_text(text: &mut String, more: usize) -> Result<(), OutOfMemory> {
    text.try_reserve_exact(more).map_err(|_| OutOfMemory)?;
    leaves_some(more)
}

/// A copy of `bytes`.
pub(crate) fn copy(bytes: &[u8]) -> Result<Vec<u8>, OutOfMemory> {
    let mut copy = Vec::new();
    reserve_exact(&mut copy, bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Whether so many bytes could be had.
pub(crate) fn has(bytes: usize) -> Result<(), OutOfMemory> {
    let mut room = Vec::<u8>::new();
    room.try_reserve_exact(bytes).map_err(|_| OutOfMemory)?;
    // Else nobody would see that it was asked for, and it would not be.
    black_box(&mut room);
    Ok(())
}

/// Whether something is left behind `taken` bytes, where these are many.
fn leaves_some(taken: usize) -> Result<(), OutOfMemory> {
    if taken < LARGE { Ok(()) } else { has(LEFT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_memory_for_is_refused_and_what_was_there_stays() {
        let mut bytes = b"hello".to_vec();
        assert_eq!(reserve(&mut bytes, isize::MAX as usize), Err(OutOfMemory));
        assert_eq!(reserve_exact(&mut bytes, isize::MAX as usize), Err(OutOfMemory));
        assert_eq!(bytes, b"hello");
        let mut text = "hello".to_owned();
        assert_eq!(reserve_text(&mut text, isize::MAX as usize), Err(OutOfMemory));
        assert_eq!(text, "hello");
        assert_eq!(has(isize::MAX as usize), Err(OutOfMemory));
    }

    #[test]
    fn what_there_is_memory_for_has_its_room() {
        let mut bytes = b"hello".to_vec();
        assert_eq!(reserve(&mut bytes, 200_000), Ok(()));
        assert!(bytes.capacity() >= 200_005);
        assert_eq!(copy(&bytes).unwrap(), b"hello");
        assert_eq!(has(LARGE), Ok(()));
    }
}
