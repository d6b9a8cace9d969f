// Without these features, the examples of the page do not compile.
#![cfg_attr(
    any(
        not(doctest),
        all(feature = "actix", feature = "cookies", feature = "testing")
    ),
    doc = include_str!("../docs/writing-a-library-crate.md")
)]
