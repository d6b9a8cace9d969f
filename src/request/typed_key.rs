//! A key that knows its type.

use std::{borrow::Borrow, fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use crate::{error::Error, manager, request::HasSession};

/// A key and the type of what is under it, said once: every use of the key then agrees.
///
/// Its methods take whatever has a session, through [`manager::get`]: a request of any framework, or
/// a [`Session`](crate::Session). The text is the whole key, as the session has it; a crate begins it
/// with its own name and a dot, so that it lies in the crate's
/// [`Namespace`](crate::Namespace).
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use session_manager::{Error, HasSession, SessionKey};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Cart { items: Vec<u32> }
///
/// const CART: SessionKey<Cart> = SessionKey::new("shop.cart");
///
/// fn items(req: &(impl HasSession + ?Sized)) -> Result<usize, Error> {
///     Ok(CART.load(req)?.unwrap_or_default().items.len())
/// }
/// ```
pub struct SessionKey<T> {
    key: &'static str,
    /// The key holds no `T`, it makes some.
    of: PhantomData<fn() -> T>,
}

impl<T> SessionKey<T> {
    /// The key `key`, for values of type `T`.
    ///
    /// ```
    /// use session_manager::SessionKey;
    ///
    /// const VISITS: SessionKey<u32> = SessionKey::new("counter.visits");
    /// ```
    pub const fn new(key: &'static str) -> Self {
        let of = PhantomData;
        Self { key, of }
    }

    /// Puts `value` under this key, in place of what was there, whatever its type. What a `T`
    /// borrows as will do: a `&str` for a `String`, a slice for a `Vec`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::add`](crate::Session::add).
    ///
    /// ```
    /// # fn f(req: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::SessionKey;
    ///
    /// const NAME: SessionKey<String> = SessionKey::new("profile.name");
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

    /// The value under this key.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and [`Error::WrongType`], if somebody else left another type there.
    pub fn load(self, req: &(impl HasSession + ?Sized)) -> Result<Option<T>, Error>
    where
        T: DeserializeOwned,
    {
        manager::get().load(req, self.key)
    }

    /// Takes the value under this key out of the session.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::pop_load`](crate::Session::pop_load): the value then
    /// stays where it is.
    pub fn pop_load(self, req: &(impl HasSession + ?Sized)) -> Result<Option<T>, Error>
    where
        T: DeserializeOwned,
    {
        manager::get().pop_load(req, self.key)
    }

    /// [`Session::update`](crate::Session::update) under this key.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::update`](crate::Session::update).
    ///
    /// ```
    /// # fn f(req: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::SessionKey;
    ///
    /// const VISITS: SessionKey<u32> = SessionKey::new("counter.visits");
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

    /// [`Session::take`](crate::Session::take) under this key.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::take`](crate::Session::take).
    ///
    /// ```
    /// # async fn f(req: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::SessionKey;
    ///
    /// const TOKEN: SessionKey<String> = SessionKey::new("reset.token");
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

    /// [`Session::update_now`](crate::Session::update_now) under this key.
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

// Not derived, because a derive would ask the same of `T`.
impl<T> Clone for SessionKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SessionKey<T> {}

impl<T> fmt::Debug for SessionKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionKey").field(&self.key).finish()
    }
}
