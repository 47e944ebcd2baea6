//! A URL and a reference to be resolved from there: what comes of them can stand in a request, and means the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let (base, reference) = data.split_once(' ').unwrap_or((data, ""));
    for (authority, target, again) in lodger::fuzzing::resolve(base, reference) {
        assert!(!authority.is_empty() && authority.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!authority.contains(['@', '/', '?', '#', '%']));
        assert!(
            target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        );
        let Some(again) = again.filter(|again| again.len() <= 8 * 1024) else { continue };
        let found = lodger::fuzzing::resolve(&again, "").swap_remove(0);
        assert_eq!(found, (authority, target, Some(again)));
    }
});
