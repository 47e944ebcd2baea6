//! Chunked content: however it is cut, it is the same, and never more than is allowed.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use lodger::Limits;

const LIMIT: u64 = 300;

fuzz_target!(|data: &[u8]| {
    let (cuts, input) = common::split(data, 4);
    let limits = Limits { content: Some(LIMIT), ..Limits::default() };
    let whole = lodger::fuzzing::chunked(input, &[input.len()], &limits);
    let pieces = lodger::fuzzing::chunked(input, &common::ends(input.len(), cuts), &limits);
    assert_eq!(whole, pieces);
    assert!(whole.0.len() as u64 <= LIMIT);
    if let Ok(Some(used)) = whole.1 {
        assert!(used <= input.len() && input[..used].ends_with(b"\r\n"));
    }
});
