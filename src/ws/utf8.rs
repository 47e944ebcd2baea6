//! UTF-8 (RFC 3629) that arrives in pieces cut anywhere.
//!
//! A byte that cannot belong to any UTF-8 text is noticed with the piece that brings it, not with the end of the
//! character or of the message.

use super::ProtocolError;

/// Validates a whole text.
#[inline(always)]
pub(crate) fn validate(bytes: &[u8]) -> Result<&str, ProtocolError> {
    // Vectors pay from 64 bytes on.
    let text = if bytes.len() < 64 {
        std::str::from_utf8(bytes).ok()
    } else {
        simdutf8::basic::from_utf8(bytes).ok()
    };
    text.ok_or(ProtocolError::InvalidUtf8)
}

/// Validates a text piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8 {
    /// The first `len` are the beginning of a character whose end has not come: three bytes at most between calls.
    carry: [u8; 4],
    len: u8,
}

/// What became certain with one piece.
#[derive(Debug)]
pub(crate) struct Valid<'a> {
    /// The character that earlier pieces began.
    pub(crate) completed: Option<char>,
    /// All whole characters behind it.
    pub(crate) text: &'a str,
}

impl Utf8 {
    /// Takes the next piece. After an error the validator is of no further use.
    pub(crate) fn feed<'a>(&mut self, mut piece: &'a [u8]) -> Result<Valid<'a>, ProtocolError> {
        let completed = self.complete(&mut piece)?;
        let (whole, tail) = piece.split_at(piece.len() - unfinished(piece));
        let text = validate(whole)?;
        if !tail.is_empty() {
            self.carry[..tail.len()].copy_from_slice(tail);
            self.len = tail.len() as u8;
            self.decode_carry()?;
        }
        Ok(Valid { completed, text })
    }

    /// True if the text may end here: no character has begun.
    pub(crate) fn is_complete(self) -> bool {
        self.len == 0
    }

    /// Takes from the front of `piece` what the character under way lacks.
    fn complete(&mut self, piece: &mut &[u8]) -> Result<Option<char>, ProtocolError> {
        while self.len > 0 {
            let Some(byte) = piece.split_off_first() else {
                break;
            };
            self.carry[usize::from(self.len)] = *byte;
            self.len += 1;
            if let Some(character) = self.decode_carry()? {
                self.len = 0;
                return Ok(Some(character));
            }
        }
        Ok(None)
    }

    /// The character in `carry`; `None` if it goes on. The standard library tells a good beginning from a bad one.
    fn decode_carry(&self) -> Result<Option<char>, ProtocolError> {
        match std::str::from_utf8(&self.carry[..usize::from(self.len)]) {
            Ok(text) => Ok(text.chars().next()),
            Err(error) if error.error_len().is_none() => Ok(None),
            Err(_) => Err(ProtocolError::InvalidUtf8),
        }
    }
}

/// How many bytes at the end of `piece` begin a character that goes on behind it. Says nothing about their validity.
fn unfinished(piece: &[u8]) -> usize {
    for (behind, byte) in piece.iter().rev().take(3).enumerate() {
        let width = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        let have = behind + 1;
        return if width > have { have } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The judgement of the standard library on a text that may go on.
    fn is_good_beginning(bytes: &[u8]) -> bool {
        std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
    }

    /// Feeds `pieces` and compares with std after each of them, up to the first error.
    fn check(pieces: &[&[u8]]) {
        let mut utf8 = Utf8::default();
        let mut fed = Vec::new();
        let mut text = String::new();
        for piece in pieces {
            fed.extend_from_slice(piece);
            match utf8.feed(piece) {
                Ok(valid) => {
                    assert!(is_good_beginning(&fed), "accepted {fed:x?} in {pieces:x?}");
                    text.extend(valid.completed);
                    text.push_str(valid.text);
                    assert!(fed.starts_with(text.as_bytes()));
                    assert!(fed.len() - text.len() < 4);
                    assert_eq!(utf8.is_complete(), std::str::from_utf8(&fed).is_ok());
                    assert_eq!(utf8.is_complete(), fed.len() == text.len());
                }
                Err(error) => {
                    assert_eq!(error, ProtocolError::InvalidUtf8);
                    assert!(!is_good_beginning(&fed), "refused {fed:x?} in {pieces:x?}");
                    return;
                }
            }
        }
    }

    fn check_every_split(bytes: &[u8]) {
        check(&[bytes]);
        check(&bytes.chunks(1).collect::<Vec<_>>());
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                check(&[&bytes[..first], &bytes[first..second], &bytes[second..]]);
            }
        }
    }

    /// Bytes on both sides of every bound in the table of RFC 3629, section 4.
    const EDGES: [u8; 22] = [
        0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed,
        0xef, 0xf0, 0xf4, 0xf5, 0xff,
    ];

    #[test]
    fn every_sequence_of_four_edge_bytes_in_every_split_is_judged_as_by_std() {
        for a in EDGES {
            for b in EDGES {
                for c in EDGES {
                    for d in EDGES {
                        check_every_split(&[a, b, c, d]);
                    }
                }
            }
        }
    }

    #[test]
    fn every_character_width_within_text_in_every_split() {
        for text in
            ["", "plain", "κόσμε", "a\u{7ff}b\u{800}c\u{ffff}d\u{10000}e\u{10ffff}", "\u{1f980}\u{1f980}"]
        {
            check_every_split(text.as_bytes());
            for bad in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90", b"\xe0\x80"] {
                check_every_split(&[text.as_bytes(), bad, text.as_bytes()].concat());
            }
        }
    }

    #[test]
    fn long_text_in_pieces_of_every_size() {
        let text = "Σὲ γνωρίζω ἀπὸ τὴν κόψη 🦀 plain ".repeat(9);
        for size in 1..200 {
            check(&text.as_bytes().chunks(size).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_validator_is_small() {
        assert!(size_of::<Utf8>() <= 8);
    }
}
