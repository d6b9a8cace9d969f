//! The macro for all log lines; it does nothing without the feature `tracing`.

/// Logs an event: `log!(WARN, "text {}", value)`. Never pass a key, an id or a cookie value.
macro_rules! log {
    ($level:ident, $($message:tt)+) => {{
        #[cfg(feature = "tracing")]
        tracing::event!(target: "session_manager", tracing::Level::$level, $($message)+);
        #[cfg(not(feature = "tracing"))]
        let _ = format_args!($($message)+);
    }};
}

pub(crate) use log;
