//! Where the servers are, by a url.

use std::fmt;

use redis::{
    Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, TlsMode,
    cluster::ClusterClient,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};

use super::{
    NAME,
    link::{self, Source},
};
use crate::store::{StoreError, wrong_scheme};

/// Makes the client that `url` asks for; nothing is connected.
pub(super) fn source(url: &str) -> Result<(Source, Hosts), StoreError> {
    let refused = |why: String| StoreError::config(NAME, why);
    check(url, cfg!(feature = "redis-tls")).map_err(refused)?;
    parse(url).map_err(|error| refused(error.to_string()))
}

/// Returns why `url` is refused, if its scheme is another store's or needs TLS. Shows no part of the
/// url, which may hold a password.
fn check(url: &str, has_tls: bool) -> Result<(), String> {
    const SCHEMES: [&str; 4] = ["redis://", "rediss://", "valkey://", "valkeys://"];
    let is_list = url.split(',').all(|one| one.contains("://"));
    for url in url.split(',').take(if is_list { usize::MAX } else { 1 }) {
        let (scheme, _) = url.split_once("://").unwrap_or_default();
        match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("rediss" | "valkeys", "" | "cluster" | "sentinel") if !has_tls => {
                return Err(format!(
                    "`{scheme}://` needs the feature `redis-tls` of session-manager"
                ));
            }
            ("redis" | "rediss" | "valkey" | "valkeys", "" | "cluster" | "sentinel")
            | ("redis" | "valkey", "unix")
            | ("unix", "") => {}
            _ => {
                let why = wrong_scheme(url, &SCHEMES);
                return Err(
                    why + ", with `+cluster` or `+sentinel` before the colon for several servers"
                );
            }
        }
    }
    Ok(())
}

fn parse(url: &str) -> RedisResult<(Source, Hosts)> {
    #[cfg(feature = "redis-tls")]
    provide_cryptography();
    if url.contains(",") && url.split(',').all(|one| one.contains("://")) {
        let nodes: Vec<_> = url
            .split(',')
            .map(IntoConnectionInfo::into_connection_info)
            .collect::<RedisResult<_>>()?;
        return cluster(nodes);
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(invalid("a url begins with redis:// or the like"));
    };
    match scheme.split_once('+') {
        Some((scheme, "cluster")) => cluster(Many::parse(scheme, rest).nodes("")?),
        Some((scheme, "sentinel")) => sentinel(scheme, rest),
        _ => {
            let info = url.into_connection_info()?;
            let hosts = Hosts::of([&info]);
            Ok((Source::Node(Box::new(Client::open(info)?)), hosts))
        }
    }
}

/// Without a provider of its process rustls panics where two are compiled in, and the application may
/// have brought another. One that it has installed stays.
#[cfg(feature = "redis-tls")]
fn provide_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // If it fails, another thread was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn invalid(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, what))
}

fn cluster(nodes: Vec<ConnectionInfo>) -> RedisResult<(Source, Hosts)> {
    let hosts = Hosts::of(&nodes);
    let seeds = nodes.iter().cloned().map(Client::open);
    let seeds = seeds.collect::<RedisResult<_>>()?;
    let client = ClusterClient::builder(nodes)
        .connection_timeout(link::CONNECT_LIMIT / 2)
        .response_timeout(link::PATIENCE)
        .overall_response_timeout(Some(2 * link::PATIENCE))
        .min_retry_wait(10)
        .max_retry_wait(100)
        .build()?;
    Ok((Source::Cluster(Box::new(client), seeds), hosts))
}

fn sentinel(scheme: &str, rest: &str) -> RedisResult<(Source, Hosts)> {
    let many = Many::parse(scheme, rest);
    let (service, db) = many.path.split_once('/').unwrap_or((many.path, ""));
    if service.is_empty() {
        return Err(invalid(
            "a Sentinel url ends in the name of the service: redis+sentinel://host:26379/mymaster",
        ));
    }
    // User, password and database are those of the servers; Sentinels are asked without.
    let servers = many.nodes(db)?;
    let mut node = SentinelNodeConnectionInfo::default();
    if let Some(info) = servers.first() {
        node = node.set_redis_connection_info(info.redis_settings().clone());
    }
    if matches!(scheme, "rediss" | "valkeys") {
        node = node.set_tls_mode(TlsMode::Secure);
    }
    let sentinels = Many { user: None, ..many };
    let sentinels = sentinels.nodes("")?;
    let hosts = Hosts::of(&sentinels);
    let client = SentinelClient::build(
        sentinels,
        String::from(service),
        Some(node),
        SentinelServerType::Master,
    )?;
    Ok((Source::Sentinel(Box::new(client.into())), hosts))
}

/// A url of several hosts.
struct Many<'a> {
    scheme: &'a str,
    /// User and password, as they stand in the url.
    user: Option<&'a str>,
    hosts: &'a str,
    path: &'a str,
}

impl<'a> Many<'a> {
    fn parse(scheme: &'a str, rest: &'a str) -> Self {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        Self {
            scheme,
            user,
            hosts,
            path,
        }
    }

    /// Each host as a server of its own.
    fn nodes(&self, db: &str) -> RedisResult<Vec<ConnectionInfo>> {
        let user = self.user.map(|user| format!("{user}@")).unwrap_or_default();
        self.hosts
            .split(',')
            .map(|host| format!("{}://{user}{host}/{db}", self.scheme).into_connection_info())
            .collect()
    }
}

/// Where the servers are, for people: no user, no password.
pub(super) struct Hosts(String);

impl Hosts {
    fn of<'a>(nodes: impl IntoIterator<Item = &'a ConnectionInfo>) -> Self {
        let hosts: Vec<_> = nodes
            .into_iter()
            .map(|node| node.addr().to_string())
            .collect();
        Self(hosts.join(", "))
    }

    /// Those of a client that the application made.
    pub(super) fn own() -> Self {
        Self("the application's own client".to_owned())
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_url_over_tls_names_the_feature_that_it_needs() {
        for url in [
            "rediss://ada:s3cret@localhost",
            "valkeys://localhost",
            "rediss+cluster://one,two",
            "redis://one,rediss://two",
        ] {
            let why = check(url, false).unwrap_err();
            assert!(
                why.contains("`redis-tls`") && !why.contains("s3cret"),
                "{why}"
            );
            assert_eq!(check(url, true), Ok(()));
        }
    }

    #[test]
    fn every_scheme_of_redis_and_valkey_is_taken() {
        for url in [
            "redis://localhost",
            "valkey://ada:a,b@localhost/0",
            "redis+unix:///run/redis.sock",
            "unix:///run/redis.sock",
            "redis+cluster://one:7000,two:7001",
            "valkey+sentinel://one,two/mymaster",
            "redis://one,redis://two",
        ] {
            assert_eq!(check(url, false), Ok(()), "{url}");
        }
    }
}
