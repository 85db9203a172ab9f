//! A wrong signature yields a compile error that says what would be right. `TRYBUILD=overwrite` writes the errors anew.

#[test]
fn wrong_signatures_yield_readable_errors() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
