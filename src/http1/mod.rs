//! HTTP/1.1 and 1.0 on the wire (RFC 9112): what a server and a client read and write.
//!
//! [`head`] finds the end of a request's head and reads it, [`answer`] does so for a response, [`body`] decodes the content of
//! both. [`encode`] appends responses to a buffer, and [`ask`] requests. None of them holds a socket, a clock or a callback;
//! [`role`] puts them together.

pub(crate) mod answer;
pub(crate) mod ask;
pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod encode;
pub(crate) mod head;
pub(crate) mod role;
pub(crate) mod waits;

#[cfg(test)]
pub(crate) mod testing {
    /// Xorshift: tests that use chance can be repeated.
    pub(crate) struct Random(u64);

    impl Random {
        pub(crate) fn new(seed: u64) -> Self {
            Self(seed)
        }

        /// A number below `bound`, which is not 0.
        pub(crate) fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    /// `input` with a few bytes changed, left out, put in or repeated.
    pub(crate) fn mutate(input: &[u8], random: &mut Random) -> Vec<u8> {
        const NASTY: &[u8] = b"\r\n\r\n \t:;,=\"\\\0\x7f\x80\xff0159afxX#/*";
        let mut output = input.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(output.len());
            let nasty = NASTY[random.below(NASTY.len())];
            match random.below(5) {
                0 => output[at] = nasty,
                1 => output.insert(at, nasty),
                2 => drop(output.remove(at)),
                3 => output[at] ^= 1 << random.below(8),
                _ => {
                    let part = output[at..output.len().min(at + 20)].to_vec();
                    let to = random.below(output.len());
                    output.splice(to..to, part);
                }
            }
        }
        output
    }
}
