//! One macro for every log line, which vanishes without the feature `tracing`.

/// `log!(WARN, "text {}", value)`. No argument is ever a key, an id or a cookie's value.
macro_rules! log {
    ($level:ident, $($message:tt)+) => {{
        #[cfg(feature = "tracing")]
        tracing::event!(target: "session_manager", tracing::Level::$level, $($message)+);
        #[cfg(not(feature = "tracing"))]
        let _ = format_args!($($message)+);
    }};
}

pub(crate) use log;
