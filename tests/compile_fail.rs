//! Mistakes that the compiler finds.

#[test]
fn programs_that_must_not_compile_do_not() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
