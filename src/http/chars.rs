//! The character classes of RFC 9110 and RFC 3986, as one table, so that a whole slice is checked without a branch.

/// `tchar`: methods, field names, tokens (RFC 9110, section 5.6.2).
const TOKEN: u8 = 1;
/// What a field value may hold: visible characters, space, tab, and the bytes above ASCII (RFC 9110, section 5.5).
const VALUE: u8 = 2;
/// What we take in a target. RFC 3986 leaves out `\ ^ ` { | }` too, but browsers send these unescaped.
const TARGET: u8 = 4;
/// `reg-name` (RFC 3986, section 3.2.2) without the comma, which would join two Host fields.
const REG_NAME: u8 = 8;

/// Whether `bytes` is a token: not empty, and nothing but `tchar` (RFC 9110, section 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Whether `bytes` can be a field value, or a part of one: no controls but the tab (RFC 9110, section 5.5).
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
    all(bytes, VALUE)
}

/// Whether `bytes` holds only what a target may: visible ASCII, no fragment, no `"`, `<` or `>`.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    all(bytes, TARGET)
}

/// Whether `bytes` holds only what the name of a host may; its `%` are not checked.
pub(crate) fn is_reg_name(bytes: &[u8]) -> bool {
    all(bytes, REG_NAME)
}

fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |left, &byte| left & TABLE[usize::from(byte)]) != 0
}

static TABLE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = classes(byte as u8);
        byte += 1;
    }
    table
};

const fn classes(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => TOKEN | VALUE | TARGET | REG_NAME,
        b'-' | b'.' | b'_' | b'~' => TOKEN | VALUE | TARGET | REG_NAME,
        b'!' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' => TOKEN | VALUE | TARGET | REG_NAME,
        b'^' | b'`' | b'|' => TOKEN | VALUE | TARGET,
        b'(' | b')' | b';' | b'=' => VALUE | TARGET | REG_NAME,
        b',' | b'/' | b':' | b'?' | b'@' | b'[' | b'\\' | b']' | b'{' | b'}' => VALUE | TARGET,
        b'#' => TOKEN | VALUE,
        b'"' | b'<' | b'>' | b' ' | b'\t' | 0x80.. => VALUE,
        0..=8 | 10..=31 | 127 => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_holds_the_characters_of_its_rule() {
        let members = |class| (0..=255u8).filter(|&byte| all(&[byte], class)).collect::<Vec<_>>();
        let alphanumeric = |rest: &[u8]| {
            let mut set: Vec<u8> =
                (0..=127u8).filter(u8::is_ascii_alphanumeric).chain(rest.iter().copied()).collect();
            set.sort_unstable();
            set
        };
        assert_eq!(members(TOKEN), alphanumeric(b"!#$%&'*+-.^_`|~"));
        assert_eq!(members(REG_NAME), alphanumeric(b"-._~!$&'()*+;=%"));
        assert_eq!(members(TARGET), alphanumeric(b"-._~!$&'()*+,;=%:@/?[]\\^`{|}"));
        let value: Vec<u8> = (0..=255).filter(|&byte| byte == 9 || (byte >= 32 && byte != 127)).collect();
        assert_eq!(members(VALUE), value);
    }

    #[test]
    fn a_token_is_not_empty() {
        assert!(!is_token(b""));
        assert!(is_field_value(b""));
    }
}
