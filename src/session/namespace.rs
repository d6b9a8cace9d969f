//! A part of a session that belongs to one crate.

use serde::{Serialize, de::DeserializeOwned};

use crate::{error::Error, session::Session};

/// The keys of a [`Session`] that begin with a name and a dot: one crate's own part of it, where it
/// meets nobody else's keys.
///
/// It comes from [`Session::namespace`]. `filter` in the namespace `admin` is `admin.filter` in the
/// session, in errors too. So `namespace("admin").namespace("users")` and `namespace("admin.users")`
/// are the same, and a crate owns everything below its name. What its names and keys may hold are
/// the rules of the whole key: an empty name gives `.filter`, and one that begins with U+0001 or
/// U+0002 or holds U+0000 makes every write an [`Error::ReservedKey`].
///
/// A handle, as a session is: clones are the same part of the same session, and may move into other
/// threads and tasks. Messages, renewal and the end belong to the session as a whole and stay there.
///
/// ```
/// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
/// let (admin, shop) = (session.namespace("admin"), session.namespace("shop"));
/// admin.add("filter", "open")?;
/// shop.add("filter", "red")?;
/// assert_eq!(admin.get("filter").as_deref(), Some("open"));
/// assert_eq!(session.keys(), ["admin.filter", "shop.filter"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Namespace {
    session: Session,
    /// The name and the dot.
    prefix: Box<str>,
}

impl Namespace {
    pub(crate) fn new(session: Session, name: &str) -> Self {
        let prefix = format!("{name}.").into();
        Self { session, prefix }
    }

    /// The namespace `name` within this one.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.namespace("admin").namespace("users").add("page", 3)?;
    /// assert_eq!(session.get("admin.users.page").as_deref(), Some("3"));
    /// # Ok(()) }
    /// ```
    pub fn namespace(&self, name: &str) -> Self {
        Self::new(self.session.clone(), &self.full(name))
    }

    /// [`Session::add`] under this namespace's key.
    ///
    /// # Errors
    ///
    /// As [`Session::add`].
    pub fn add(&self, key: &str, value: impl Serialize) -> Result<(), Error> {
        self.session.add(&self.full(key), value)
    }

    /// [`Session::get`] under this namespace's key.
    pub fn get(&self, key: &str) -> Option<String> {
        self.session.get(&self.full(key))
    }

    /// [`Session::pop`] under this namespace's key.
    pub fn pop(&self, key: &str) -> Option<String> {
        self.session.pop(&self.full(key))
    }

    /// [`Session::load`] under this namespace's key.
    ///
    /// # Errors
    ///
    /// As [`Session::load`].
    pub fn load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.session.load(&self.full(key))
    }

    /// [`Session::pop_load`] under this namespace's key.
    ///
    /// # Errors
    ///
    /// As [`Session::pop_load`].
    pub fn pop_load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.session.pop_load(&self.full(key))
    }

    /// [`Session::update`] under this namespace's key.
    ///
    /// # Errors
    ///
    /// As [`Session::update`].
    pub fn update<T>(
        &self,
        key: &str,
        f: impl Fn(Option<T>) -> T + Send + Sync + 'static,
    ) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        self.session.update(&self.full(key), f)
    }

    /// [`Session::take`] under this namespace's key.
    ///
    /// # Errors
    ///
    /// As [`Session::take`].
    pub async fn take<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.session.take(&self.full(key)).await
    }

    /// [`Session::update_now`] under this namespace's key.
    ///
    /// # Errors
    ///
    /// As [`Session::update_now`].
    pub async fn update_now<T>(
        &self,
        key: &str,
        f: impl Fn(Option<T>) -> T + Send + Sync + 'static,
    ) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        self.session.update_now(&self.full(key), f).await
    }

    /// Whether there is a value under this namespace's key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.session.contains_key(&self.full(key))
    }

    /// The keys of this namespace, sorted and without its name.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("user", "ada")?;
    /// session.add("admin.users.page", 3)?;
    /// assert_eq!(session.namespace("admin").keys(), ["users.page"]);
    /// # Ok(()) }
    /// ```
    pub fn keys(&self) -> Vec<String> {
        let keys = self.session.keys().into_iter();
        keys.filter_map(|key| Some(key.strip_prefix(&*self.prefix)?.to_owned()))
            .collect()
    }

    /// How many values there are in this namespace.
    pub fn len(&self) -> usize {
        self.keys().len()
    }

    /// Whether there is no value in this namespace.
    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }

    /// Takes every value of this namespace out of the session, and nothing else.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("user", "ada")?;
    /// session.add("admin.filter", "open")?;
    /// session.namespace("admin").clear();
    /// assert_eq!(session.keys(), ["user"]);
    /// # Ok(()) }
    /// ```
    pub fn clear(&self) {
        for key in self.keys() {
            self.pop(&key);
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}
