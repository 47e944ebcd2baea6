//! lodger's codec beside zlib in C: the same messages, the same settings, one after the other in every round.

use crate::json;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use lodger::ws::deflate::{Compressor, Decompressor, Setting};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// What is timed at once, in bytes of payload.
const ROUND: usize = 4 << 20;
const ROUNDS: usize = 7;

/// The processor time that this process has had.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

pub(crate) fn measure() {
    println!(
        "MB/s of payload; in brackets, as a multiple of zlib in C. Shrunk: what is left, of zlib in brackets."
    );
    println!(
        "{:>6} {:>5} {:>8}  {:>14}  {:>14}  shrunk",
        "bytes", "level", "takeover", "compress", "inflate"
    );
    for length in [1024, 64 * 1024] {
        let messages = json::messages(length);
        for level in [1, 3, 6] {
            for takeover in [false, true] {
                compare(&messages, level, takeover);
            }
        }
    }
}

fn compare(messages: &[String], level: u8, takeover: bool) {
    let mut ours = (Compressor::new(Setting::new(level, 15, 8)), Decompressor::new());
    let mut theirs = (Compress::new(Compression::new(level.into()), false), Decompress::new(false));
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    let mut sizes = (0, 0);
    for _ in 0..ROUNDS {
        sizes.0 = round(messages, &mut our_times, |messages, wire| {
            let before = processor();
            for (message, wire) in messages.iter().zip(&mut *wire) {
                if !takeover {
                    ours.0.reset();
                }
                assert!(ours.0.compress(message.as_bytes(), wire));
            }
            let middle = processor();
            let mut out = vec![0; 128 * 1024];
            for (message, wire) in messages.iter().zip(&*wire) {
                if !takeover {
                    ours.1.reset();
                }
                let progress = ours.1.decompress(wire, true, &mut out).expect("it was compressed");
                assert_eq!(progress.written, message.len());
            }
            (middle - before, processor() - middle)
        });
        sizes.1 = round(messages, &mut their_times, |messages, wire| {
            let before = processor();
            for (message, wire) in messages.iter().zip(&mut *wire) {
                if !takeover {
                    theirs.0.reset();
                }
                wire.reserve(message.len() + 64);
                theirs.0.compress_vec(message.as_bytes(), wire, FlushCompress::Sync).expect("there is room");
            }
            let middle = processor();
            let mut out = Vec::with_capacity(128 * 1024);
            for (message, wire) in messages.iter().zip(&*wire) {
                if !takeover {
                    theirs.1.reset(false);
                }
                out.clear();
                theirs.1.decompress_vec(wire, &mut out, FlushDecompress::Sync).expect("it was compressed");
                assert_eq!(out.len(), message.len());
            }
            (middle - before, processor() - middle)
        });
    }
    let payload: usize = messages.iter().map(String::len).sum();
    let speed = |time: Duration| payload as f64 / 1e6 / time.as_secs_f64();
    let median = |times: &[(Duration, Duration)], pick: fn(&(Duration, Duration)) -> Duration| {
        let mut times: Vec<Duration> = times.iter().map(pick).collect();
        times.sort();
        speed(times[times.len() / 2])
    };
    let [compress, inflate] = [|time: &(Duration, Duration)| time.0, |time: &(Duration, Duration)| time.1];
    let [ours, theirs] =
        [&our_times, &their_times].map(|times| (median(times, compress), median(times, inflate)));
    println!(
        "{:6} {level:5} {takeover:8}  {:7.0} ({:.2})  {:7.0} ({:.2})  {:.3} ({:.3})",
        messages[0].len(),
        ours.0,
        ours.0 / theirs.0,
        ours.1,
        ours.1 / theirs.1,
        sizes.0 as f64 / payload as f64,
        sizes.1 as f64 / payload as f64,
    );
}

/// Times all messages as often as a round needs; what they were compressed to, in bytes.
fn round(
    messages: &[String],
    times: &mut Vec<(Duration, Duration)>,
    mut run: impl FnMut(&[String], &mut [Vec<u8>]) -> (Duration, Duration),
) -> usize {
    let payload: usize = messages.iter().map(String::len).sum();
    let repeats = ROUND.div_ceil(payload);
    let mut total = (Duration::ZERO, Duration::ZERO);
    let mut size = 0;
    for _ in 0..repeats {
        let mut wire = vec![Vec::with_capacity(messages[0].len() + 64); messages.len()];
        let (compress, inflate) = run(messages, &mut wire);
        total = (total.0 + compress, total.1 + inflate);
        size = wire.iter().map(Vec::len).sum();
    }
    times.push((total.0 / repeats as u32, total.1 / repeats as u32));
    size
}
