//! Mistakes that the compiler finds.
#![cfg(all(feature = "actix", feature = "cookies"))]

#[test]
fn what_must_not_compile_does_not() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
