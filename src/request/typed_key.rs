//! Session keys with the type of their value.

use std::{borrow::Borrow, fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use crate::{error::Error, manager, request::HasSession};

/// A session key with the type of its value, declared once for all uses.
///
/// Its methods accept any [`HasSession`]: a request of any framework, or a
/// [`Session`](crate::Session). They use the session of [`manager::get`]. The text is the full key
/// in the session; a library crate begins it with its own name and a dot, which places it in the
/// crate's [`Namespace`](crate::Namespace).
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use session_manager::{Error, HasSession, TypedKey};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Cart { items: Vec<u32> }
///
/// const CART: TypedKey<Cart> = TypedKey::new("shop.cart");
///
/// fn items(req: &(impl HasSession + ?Sized)) -> Result<usize, Error> {
///     Ok(CART.load(req)?.unwrap_or_default().items.len())
/// }
/// ```
pub struct TypedKey<T> {
    key: &'static str,
    /// `fn() -> T`, because the key stores no `T` and is `Send` and `Sync` for any `T`.
    of: PhantomData<fn() -> T>,
}

impl<T> TypedKey<T> {
    /// Creates the key `key` for values of type `T`.
    ///
    /// ```
    /// use session_manager::TypedKey;
    ///
    /// const VISITS: TypedKey<u32> = TypedKey::new("counter.visits");
    /// ```
    pub const fn new(key: &'static str) -> Self {
        let of = PhantomData;
        Self { key, of }
    }

    /// Stores `value` under this key and replaces a former value of any type. Accepts borrowed
    /// forms of `T`: a `&str` for a `String`, a slice for a `Vec`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::add`](crate::Session::add).
    ///
    /// ```
    /// # fn f(req: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::TypedKey;
    ///
    /// const NAME: TypedKey<String> = TypedKey::new("profile.name");
    /// NAME.add(req, "Ada")?;
    /// NAME.add(req, &String::from("Ada"))?;
    /// # Ok(()) }
    /// ```
    pub fn add<V>(self, req: &(impl HasSession + ?Sized), value: &V) -> Result<(), Error>
    where
        T: Borrow<V>,
        V: Serialize + ?Sized,
    {
        manager::get().add(req, self.key, value)
    }

    /// Returns the value under this key.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and [`Error::WrongType`] if the key holds a value of another type.
    pub fn load(self, req: &(impl HasSession + ?Sized)) -> Result<Option<T>, Error>
    where
        T: DeserializeOwned,
    {
        manager::get().load(req, self.key)
    }

    /// Removes the value under this key from the session and returns it.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and those of [`Session::pop_load`](crate::Session::pop_load). The
    /// value then stays in the session.
    pub fn pop_load(self, req: &(impl HasSession + ?Sized)) -> Result<Option<T>, Error>
    where
        T: DeserializeOwned,
    {
        manager::get().pop_load(req, self.key)
    }

    /// Replaces the value under this key by the result of `f`, and returns it: see
    /// [`Session::update`](crate::Session::update).
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::update`](crate::Session::update).
    ///
    /// ```
    /// # fn f(req: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::TypedKey;
    ///
    /// const VISITS: TypedKey<u32> = TypedKey::new("counter.visits");
    /// let visits = VISITS.update(req, |visits| visits.unwrap_or(0) + 1)?;
    /// # Ok(()) }
    /// ```
    pub fn update(
        self,
        req: &(impl HasSession + ?Sized),
        f: impl Fn(Option<T>) -> T + Send + Sync + 'static,
    ) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        manager::get().session(req)?.update(self.key, f)
    }

    /// Removes the value under this key from the store at once, and returns it: see
    /// [`Session::take`](crate::Session::take).
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::take`](crate::Session::take).
    ///
    /// ```
    /// # async fn f(req: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::TypedKey;
    ///
    /// const TOKEN: TypedKey<String> = TypedKey::new("reset.token");
    /// let token = TOKEN.take(req).await?;
    /// # Ok(()) }
    /// ```
    pub fn take<R>(self, req: &R) -> impl Future<Output = Result<Option<T>, Error>> + use<T, R>
    where
        R: HasSession + ?Sized,
        T: DeserializeOwned,
    {
        let session = manager::get().session(req);
        async move { session?.take(self.key).await }
    }

    /// Updates the value under this key in the store at once: see
    /// [`Session::update_now`](crate::Session::update_now).
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::update_now`](crate::Session::update_now).
    pub fn update_now<R, F>(
        self,
        req: &R,
        f: F,
    ) -> impl Future<Output = Result<T, Error>> + use<T, R, F>
    where
        R: HasSession + ?Sized,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
        T: Serialize + DeserializeOwned,
    {
        let session = manager::get().session(req);
        async move { session?.update_now(self.key, f).await }
    }
}

// Not derived, because a derive would require `T: Clone`.
impl<T> Clone for TypedKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for TypedKey<T> {}

impl<T> fmt::Debug for TypedKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedKey").field(&self.key).finish()
    }
}
