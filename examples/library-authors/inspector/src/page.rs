//! The page as HTML.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use session_manager::{Carrier, Error, Session, Timestamp, observer::Event, store::Value};

use super::{Inspector, history::Entry};

/// How many events the page shows.
const SHOWN: usize = 50;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem .25rem 0;\
    border-bottom:1px solid #8884;vertical-align:top;overflow-wrap:anywhere}td.n{text-align:right}code{word-break:break-all}";

/// Text that is escaped where it is written.
struct Escaped<T>(T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match char {
                '&' => self.0.write_str("&amp;")?,
                '<' => self.0.write_str("&lt;")?,
                '>' => self.0.write_str("&gt;")?,
                '"' => self.0.write_str("&quot;")?,
                '\'' => self.0.write_str("&#39;")?,
                char => self.0.write_char(char)?,
            }
        }
        Ok(())
    }
}

pub(super) async fn render(inspector: &Inspector, session: &Session) -> Result<String, Error> {
    let user = session.user();
    let others = match &user {
        Some(user) => match session.manager().user_sessions(user).await {
            Ok(sessions) => Some(sessions),
            Err(Error::NoUserIndex { .. }) => None,
            Err(error) => return Err(error),
        },
        None => None,
    };
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Session inspector</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><style>{STYLE}</style>\
         <main><h1>Session inspector</h1>"
    );
    facts(&mut html, session, user.as_deref());
    entries(&mut html, session, inspector.shows_values);
    let path = inspector.path();
    let now = session.manager().settings().now();
    let handle = session.handle();
    html.push_str("<h2>This user's other sessions</h2>");
    match others {
        None if user.is_none() => {
            html.push_str("<p>No user is set: the visitor is not logged in.</p>")
        }
        None => html.push_str("<p>This backend cannot list a user's sessions.</p>"),
        Some(sessions) => {
            html.push_str(
                "<table id=\"others\"><tr><th>Note<th>Created<th>Last seen<th>Handle<td></tr>",
            );
            let others = sessions
                .into_iter()
                .filter(|other| Some(&other.handle) != handle.as_ref());
            for other in others {
                push(
                    &mut html,
                    format_args!(
                        "<tr><td>{note}<td>{created}<td>{seen}<td><code>{handle}</code><td>\
                         <form method=\"post\" action=\"{path}/end\">\
                         <input type=\"hidden\" name=\"handle\" value=\"{handle}\">\
                         <button>End {note}</button></form></tr>",
                        note = Escaped(other.note.as_deref().unwrap_or("(no note)")),
                        created = ago(now.since(other.created)),
                        seen = ago(now.since(other.last_seen)),
                        handle = Escaped(&other.handle),
                        path = Escaped(path),
                    ),
                );
            }
            html.push_str("</table>");
        }
    }
    history(
        &mut html,
        &inspector.history.of(handle.as_deref()),
        handle.is_some(),
    );
    html.push_str("</main></html>");
    Ok(html)
}

/// Writes where the session is, its size and its times.
fn facts(html: &mut String, session: &Session, user: Option<&str>) {
    let manager = session.manager();
    let settings = manager.settings();
    let now = settings.now();
    html.push_str("<table id=\"facts\">");
    let mut row = |name: &str, value: fmt::Arguments<'_>| {
        push(
            html,
            format_args!("<tr><th>{name}<td>{}</tr>", Escaped(value)),
        );
    };
    row("Backend", format_args!("{}", manager.backend_name()));
    match settings.carrier() {
        Carrier::Cookie => {
            row("Cookie", format_args!("{}", settings.cookie_name()));
            row(
                "Attributes",
                format_args!("{}", settings.cookie_attributes()),
            );
        }
        Carrier::Header(name) => row("Header", format_args!("{name}")),
        _ => row("Header", format_args!("Authorization: Bearer")),
    }
    row("User", format_args!("{}", user.unwrap_or("none")));
    let handle = session.handle();
    row(
        "Handle",
        format_args!("{}", handle.as_deref().unwrap_or("none")),
    );
    match session.size() {
        Some(size) => row(
            "Size",
            format_args!(
                "{} of {} bytes, room for {}",
                size.used,
                size.limit,
                size.limit.saturating_sub(size.used)
            ),
        ),
        None => row("Size", format_args!("not limited")),
    }
    let past = |time: Option<Timestamp>| match time {
        Some(time) => ago(now.since(time)),
        None => "not stored yet".to_owned(),
    };
    row("Created", format_args!("{}", past(session.created())));
    row("Last seen", format_args!("{}", past(session.last_seen())));
    match session.expires() {
        Some(expires) => row("Expires", format_args!("in {}", span(expires.since(now)))),
        None => row("Expires", format_args!("not stored yet")),
    }
    html.push_str("</table>");
}

/// Writes the keys with their sizes.
fn entries(html: &mut String, session: &Session, shows_values: bool) {
    let value_head = if shows_values { "<th>Value" } else { "" };
    push(
        html,
        format_args!(
            "<h2>Entries</h2><table id=\"entries\"><tr><th>Key<th>Kind<th>Bytes{value_head}</tr>"
        ),
    );
    for (key, value) in session.entries() {
        let kind = match value {
            Value::Text(_) => "text",
            Value::Json(_) => "JSON",
        };
        let text = value.as_str();
        push(
            html,
            format_args!(
                "<tr><td><code>{}</code><td>{kind}<td class=\"n\">{}",
                Escaped(&key),
                key.len() + text.len()
            ),
        );
        if shows_values {
            push(html, format_args!("<td><code>{}</code>", Escaped(text)));
        }
        html.push_str("</tr>");
    }
    html.push_str(
        "</table><p>Flash messages and entries of session-manager itself are not listed.</p>",
    );
}

fn history(html: &mut String, entries: &[Entry], is_own: bool) {
    html.push_str("<h2>History</h2>");
    if !is_own {
        html.push_str(
            "<p>A session of this backend has no handle, so these are the events of all such \
             sessions.</p>",
        );
    }
    html.push_str("<table id=\"history\"><tr><th>When<th>Event<th>Where</tr>");
    for entry in entries.iter().take(SHOWN) {
        push(
            html,
            format_args!(
                "<tr><td>{}<td>{}<td>{}</tr>",
                ago(entry.at.elapsed()),
                Escaped(what(entry.event)),
                Escaped(entry.backend)
            ),
        );
    }
    html.push_str("</table>");
}

fn what(event: Event) -> String {
    let name = event.name();
    match event {
        Event::Destroyed { by, .. } => format!("{name} by {}", by.as_str()),
        Event::Refused { why } => format!("{name}: {}", why.as_str()),
        Event::StoreCall {
            operation,
            took,
            outcome,
        } => format!(
            "{name} {}: {}, {:.1} ms",
            operation.as_str(),
            outcome.as_str(),
            took.as_secs_f64() * 1e3
        ),
        _ => name.to_owned(),
    }
}

/// Appends text; a `String` never fails.
fn push(html: &mut String, text: fmt::Arguments<'_>) {
    let _ = html.write_fmt(text);
}

fn ago(time: Duration) -> String {
    format!("{} ago", span(time))
}

fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let text = Escaped("<b a=\"1\" c='2'>&").to_string();
        assert_eq!(text, "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;");
    }

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        let told = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(told(59), "59 s");
        assert_eq!(told(61), "1 min");
        assert_eq!(told(7_300), "2 h");
        assert_eq!(told(200_000), "2 days");
    }
}
