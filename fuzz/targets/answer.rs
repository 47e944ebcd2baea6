//! The head of a response: however it is cut, its end is the same, and what has passed the checks has no line ends in it.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 2048;

fuzz_target!(|data: &[u8]| {
    let (cuts, input) = common::split(data, 4);
    let whole = lodger::fuzzing::find_answer(input, &[input.len()], LIMIT);
    let pieces = lodger::fuzzing::find_answer(input, &common::ends(input.len(), cuts), LIMIT);
    assert_eq!(whole, pieces);
    let Ok(Some(end)) = whole else { return };
    assert!(end <= LIMIT && input[..end].ends_with(b"\r\n\r\n"));
    let Ok((status, reason, fields)) = lodger::fuzzing::parse_answer(&input[..end]) else { return };
    assert!((100..=599).contains(&status));
    assert!(!reason.contains(&b'\r') && !reason.contains(&b'\n'));
    for (name, value) in fields {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
        assert!(value.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t'));
    }
});
