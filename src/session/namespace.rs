//! The part of a session that belongs to one crate.

use serde::{Serialize, de::DeserializeOwned};

use crate::{error::Error, session::Session};

/// The keys of a [`Session`] that begin with a name and a dot. A crate that uses its own name
/// cannot collide with the keys of other crates.
///
/// [`Session::namespace`] returns it. The key `filter` in the namespace `admin` is `admin.filter`
/// in the session and in errors, so `namespace("admin").namespace("users")` equals
/// `namespace("admin.users")`. The rules for keys apply to the whole key: an empty name gives
/// `.filter`; if the name begins with U+0001 or U+0002 or contains U+0000, every write fails with
/// [`Error::ReservedKey`].
///
/// A namespace is a handle, like a session: clones refer to the same part of the same session and
/// can be sent to other threads and tasks. Flash messages, renewing and destroying concern the
/// whole session and are methods of [`Session`] only.
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
    /// The name followed by a dot.
    prefix: Box<str>,
}

impl Namespace {
    pub(crate) fn new(session: Session, name: &str) -> Self {
        let prefix = format!("{name}.").into();
        Self { session, prefix }
    }

    /// Returns the namespace `name` within this one.
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

    /// Stores `value` under `key` of this namespace: see [`Session::add`].
    ///
    /// # Errors
    ///
    /// As [`Session::add`].
    #[doc(alias("insert", "set", "put"))]
    pub fn add(&self, key: &str, value: impl Serialize) -> Result<(), Error> {
        self.session.add(&self.full(key), value)
    }

    /// Returns the value under `key` of this namespace as a string: see [`Session::get`].
    #[doc(alias("get_string", "read"))]
    pub fn get(&self, key: &str) -> Option<String> {
        self.session.get(&self.full(key))
    }

    /// Removes the value under `key` of this namespace and returns it as a string: see
    /// [`Session::pop`].
    #[doc(alias("remove", "unset", "delete"))]
    pub fn pop(&self, key: &str) -> Option<String> {
        self.session.pop(&self.full(key))
    }

    /// Returns the value under `key` of this namespace, decoded: see [`Session::load`].
    ///
    /// # Errors
    ///
    /// As [`Session::load`].
    #[doc(alias("get_as", "get_value"))]
    pub fn load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.session.load(&self.full(key))
    }

    /// Removes the value under `key` of this namespace and returns it decoded: see
    /// [`Session::pop_load`].
    ///
    /// # Errors
    ///
    /// As [`Session::pop_load`].
    #[doc(alias("remove", "unset", "remove_as", "remove_value"))]
    pub fn pop_load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.session.pop_load(&self.full(key))
    }

    /// Replaces the value under `key` of this namespace by what `f` returns for it: see
    /// [`Session::update`].
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

    /// Removes the value under `key` of this namespace from the store at once and returns it: see
    /// [`Session::take`].
    ///
    /// # Errors
    ///
    /// As [`Session::take`].
    pub async fn take<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.session.take(&self.full(key)).await
    }

    /// Updates the value under `key` of this namespace in the store at once: see
    /// [`Session::update_now`].
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

    /// Returns `true` if this namespace has a value under `key`.
    pub fn contains_key(&self, key: &str) -> bool {
        self.session.contains_key(&self.full(key))
    }

    /// Returns the keys of this namespace, sorted and without its name.
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

    /// Returns the number of values in this namespace.
    pub fn len(&self) -> usize {
        self.keys().len()
    }

    /// Returns `true` if this namespace has no values.
    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }

    /// Removes all values of this namespace from the session.
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
