//! What is compressed: JSON as services send it, numbers, names and words, from a seed.

/// Messages of `length` bytes, so many that none is still known when it comes again.
pub(crate) fn messages(length: usize) -> Vec<String> {
    let mut random = 0x5eed_5eed_u32;
    let mut below = move |bound: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % bound
    };
    let words = ["open", "closed", "pending", "refused", "shipped", "returned", "unknown", "paid"];
    let message = |_| {
        let mut text = String::from("[");
        while text.len() < length {
            text += &format!(
                "{{\"id\":{},\"name\":\"user{}\",\"state\":\"{}\",\"price\":{}.{:02},\"at\":\"2024-{:02}-{:02}T{:02}:{:02}:00Z\"}},",
                below(1 << 20),
                below(5000),
                words[below(8) as usize],
                below(1000),
                below(100),
                1 + below(12),
                1 + below(28),
                below(24),
                below(60),
            );
        }
        text.truncate(length);
        text
    };
    (0..(1 << 20) / length).map(message).collect()
}
