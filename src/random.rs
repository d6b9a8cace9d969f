//! Randomness for keys, nonces and ids.

/// Fills `buffer` from the operating system's generator.
pub(crate) fn fill(buffer: &mut [u8]) {
    #[expect(
        clippy::expect_used,
        reason = "a predictable key, nonce or id is worse than a stop"
    )]
    getrandom::fill(buffer).expect("the operating system has no randomness to give");
}
