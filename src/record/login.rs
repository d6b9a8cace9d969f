//! The login that a cookie session with a user holds, so that it can be revoked.

/// The session key of the login.
pub(crate) const KEY: &str = "\u{2}user";

#[cfg(feature = "server-side")]
pub(crate) use entry::Login;

#[cfg(feature = "server-side")]
mod entry {
    use super::KEY;
    use crate::{random, record::entries::Entries, value::Value};

    /// The digits of `since` and of `id`.
    const SINCE: usize = 11;
    const ID: usize = 12;

    /// One login of a user. It stays the same while its session is renewed.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct Login {
        /// The user's last revocation before the login; 0 if there was none. It is read from the
        /// store and compared with what is stored, so that no two clocks are compared.
        pub(crate) since: u64,
        /// Tells the user's logins apart.
        pub(crate) id: u64,
        pub(crate) user: String,
    }

    impl Login {
        /// The last moment that a login holds: in the year 2527.
        pub(crate) const LAST: u64 = (1 << (4 * SINCE)) - 1;

        pub(crate) fn new(user: &str, since: u64) -> Self {
            let mut id = [0; 8];
            random::fill(&mut id[8 - ID / 2..]);
            let id = u64::from_be_bytes(id);
            let user = user.to_owned();
            Self { since, id, user }
        }

        pub(crate) fn encode(&self) -> Value {
            let Self { since, id, user } = self;
            Value::Text(format!("{since:0SINCE$x}{id:0ID$x}{user}").into())
        }

        pub(crate) fn decode(value: Value<&str>) -> Option<Self> {
            let (since, rest) = value.as_str().split_at_checked(SINCE)?;
            let (id, user) = rest.split_at_checked(ID)?;
            Some(Self {
                since: u64::from_str_radix(since, 16).ok()?,
                id: u64::from_str_radix(id, 16).ok()?,
                user: user.to_owned(),
            })
        }

        /// Returns the login in a session; `Some(None)` if it cannot be read.
        pub(crate) fn of(entries: &Entries) -> Option<Option<Self>> {
            entries.get(KEY).map(Self::decode)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_login_is_read_as_it_was_written() {
            for (user, since) in [("ada", 0), ("", 1), ("用户", Login::LAST)] {
                let login = Login::new(user, since);
                let value = login.encode();
                assert_eq!(value.as_str().len(), SINCE + ID + user.len());
                assert_eq!(Login::decode(value.borrowed()), Some(login));
            }
            for text in [
                "",
                "x",
                "00000000000",
                "0000000000000000000000",
                "用户用户用户用户用户用户",
            ] {
                assert_eq!(Login::decode(Value::Text(text)), None, "{text}");
            }
        }
    }
}
