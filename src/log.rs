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

/// Writes `text` to standard error if nothing receives the log, as in a first try.
pub(crate) fn print_if_unheard(text: &str) {
    #[cfg(feature = "tracing")]
    let heard = tracing::dispatcher::has_been_set()
        || tracing::log::max_level() != tracing::log::LevelFilter::Off;
    #[cfg(not(feature = "tracing"))]
    let heard = false;
    if !heard {
        #[expect(clippy::print_stderr, reason = "nothing receives the log")]
        {
            eprintln!("session-manager: {text}");
        }
    }
}
