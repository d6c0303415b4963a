//! Signing in: from what a CONNECT brings to who it is.
//!
//! Owns the one place that decides: [`Directory::sign_in`]. Does not own the connection, the
//! time it may take, nor the slow comparison with a hash, which is a verdict of its own for
//! somebody else to settle.
//!
//! # Invariants
//! - Nobody is accepted without a user, unless nobody has to sign in.
//! - Passwords and tokens are compared in a time that does not tell how much agreed. A hash
//!   is no password: whoever sends one is refused.
//! - What is refused says why to the operator only.
//!
//! Source: NATS docs, "Authentication", "nkeys", "Authorization"; order as nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use super::Secret;
use super::account::GLOBAL;
use super::certificate::Certificate;
use super::nkey::{KeyKind, PublicKey};
use super::permissions::{Permissions, Policy, Strictness};
use super::trust::sign_in::ByToken;
use super::user::{ConnectionType, Login, User};

/// Who may sign in and how, from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignInOptions {
    /// Users, with the permissions that hold for them (defaults filled in).
    pub users: Vec<User>,
    /// The only user, known by name and password; excludes `users` and `token`.
    pub single: Option<(String, Secret)>,
    /// Whoever knows this may sign in; excludes `single`.
    pub token: Option<Secret>,
    /// The user, by name or key, of those who bring no credentials.
    pub no_auth_user: Option<String>,
    /// What holds for those who come as WebSocket in place of `single`, `token` and
    /// `no_auth_user`, each as far as it says something.
    pub web: WebSignIn,
    /// Only the system account has users: everybody else gets into `$G`.
    pub only_system_users: bool,
    /// Users are taken from certificates: a user without password must have one.
    pub map_certificates: bool,
    /// Clients of the client port are known by their certificates alone: who comes there
    /// without one is nobody.
    pub certificates_alone: bool,
    /// Whose signature makes a connection one through a trusted proxy.
    pub trusted_proxies: Vec<PublicKey>,
    /// Nobody may sign in but through a trusted proxy.
    pub proxy_required: bool,
    /// How subscriptions are compared with what is allowed.
    pub strictness: Strictness,
    /// Users sign in by tokens: there are no others.
    pub by_token: bool,
}

/// Who may come as WebSocket, where that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSignIn {
    /// The only user there; excludes `token`. With either of the two those of all are not
    /// for here.
    pub single: Option<(String, Secret)>,
    /// Whoever knows this may sign in there.
    pub token: Option<Secret>,
    /// The user of those who bring no credentials there.
    pub no_auth_user: Option<String>,
}

/// What a CONNECT says of who it is from. Empty texts were not given.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// `user`.
    pub user: &'a str,
    /// `pass`.
    pub password: &'a Secret,
    /// `auth_token`.
    pub token: &'a Secret,
    /// `nkey`: a public key.
    pub nkey: &'a str,
    /// `sig`: its signature of the nonce.
    pub signature: &'a str,
    /// `proxy_sig`: a trusted proxy's signature of the nonce.
    pub proxy_signature: &'a str,
}

/// What is known of the connection itself.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// As it was sent in INFO; empty: none was.
    pub nonce: &'a str,
    /// How it connected.
    pub connection: ConnectionType,
    /// The certificate TLS has verified, if it showed one.
    pub certificate: Option<&'a Certificate>,
}

/// Somebody who may sign in.
#[derive(Debug)]
pub struct Identity {
    /// Who it is.
    pub who: Who,
    /// The account.
    pub account: String,
    /// What it may do; `None`: everything.
    pub policy: Option<Rc<Policy>>,
    /// The same as the configuration has it.
    pub permissions: Option<Rc<Permissions>>,
    /// Who signed in by a token.
    pub by_token: Option<Box<ByToken>>,
}

/// How somebody is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Nobody has to sign in.
    Anyone,
    /// A user's name.
    User(String),
    /// A user's public key.
    Nkey(String),
    /// Whoever knows the token.
    Token,
}

impl Identity {
    /// `account/user:name`, as nats-server names connections in its log; `None` where
    /// nobody has to sign in.
    pub fn label(&self) -> Option<String> {
        if let Some(by) = &self.by_token {
            return Some(alloc::format!("{}/{}/jwt:{}", self.account, by.account_name, by.subject));
        }
        Some(match &self.who {
            Who::Anyone => return None,
            Who::User(name) => alloc::format!("{}/user:{name}", self.account),
            Who::Nkey(key) => alloc::format!("{}/nkey:{key}", self.account),
            Who::Token => alloc::format!("{}/token", self.account),
        })
    }
}

/// What comes of a CONNECT.
#[derive(Debug)]
pub enum Verdict {
    /// Let in.
    Accepted(Rc<Identity>),
    /// Let in if `password` has this bcrypt `hash`, which takes long to find out.
    Hashed {
        /// Who it would be.
        identity: Rc<Identity>,
        /// The hash in the configuration.
        hash: Secret,
        /// What was sent.
        password: Secret,
    },
    /// Kept out.
    Refused(Refusal),
}

/// Why somebody is kept out. The client is never told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown, or the wrong password; there is nothing to add.
    Unknown,
    /// `sig` is empty.
    SignatureMissing,
    /// `sig` is not base64.
    SignatureNotBase64,
    /// `sig` is not one of the nonce by this key.
    SignatureWrong,
    /// `proxy_sig` is of no trusted proxy.
    ProxyNotTrusted,
    /// It came through no trusted proxy, and must.
    ProxyRequired,
    /// No user fits the certificate with this subject.
    CertificateUnknown(String),
    /// Its token is not good enough.
    Token {
        /// Why.
        text: String,
        /// The log has it as an error.
        loud: bool,
    },
}

impl Refusal {
    /// A line for the log, in nats-server's words; empty if it has none.
    pub fn text(&self) -> String {
        match self {
            Self::Unknown => String::new(),
            Self::SignatureMissing => "Signature missing".into(),
            Self::SignatureNotBase64 => "Signature not valid base64".into(),
            Self::SignatureWrong => "Signature not verified".into(),
            Self::ProxyNotTrusted => "proxy is not trusted".into(),
            Self::ProxyRequired => "proxy connection required".into(),
            Self::CertificateUnknown(subject) => {
                alloc::format!("User in cert [\"{subject}\"], not found")
            }
            Self::Token { text, .. } => text.clone(),
        }
    }
}

/// A user as it is looked up.
#[derive(Debug)]
struct Known {
    identity: Rc<Identity>,
    /// `None`: by certificate only.
    password: Option<Secret>,
    connection_types: Vec<ConnectionType>,
    proxy_required: bool,
}

impl Known {
    fn may_connect_as(&self, connection: ConnectionType) -> bool {
        self.connection_types.is_empty() || self.connection_types.contains(&connection)
    }
}

/// Everybody who may sign in.
#[derive(Debug)]
pub struct Directory {
    by_name: BTreeMap<String, Known>,
    by_nkey: BTreeMap<String, Known>,
    clients: Gate,
    web: Gate,
    anyone: Rc<Identity>,
    map_certificates: bool,
    certificates_alone: bool,
    trusted_proxies: Vec<PublicKey>,
    proxy_required: bool,
    by_token: bool,
    /// What a password is compared with where there is nothing to compare it with, if others
    /// have hashes: whether somebody is known must not show in the time an answer takes.
    decoy: Option<(Rc<Identity>, Secret)>,
}

/// What a listener has of its own.
#[derive(Clone, Debug)]
struct Gate {
    single: Option<(Rc<Identity>, Secret)>,
    token: Option<(Rc<Identity>, Secret)>,
    no_auth: Option<NoAuth>,
}

/// Who those without credentials are.
#[derive(Clone, Debug)]
enum NoAuth {
    Name(String),
    Nkey(String),
    /// Invented, in `$G`.
    Hidden(Rc<Identity>),
}

impl Default for Directory {
    fn default() -> Self {
        Self::new(SignInOptions::default(), "")
    }
}

impl Directory {
    /// Of these users. `hidden` names the invented user of a server whose users are all in
    /// the system account.
    pub fn new(options: SignInOptions, hidden: &str) -> Self {
        let mut policies = Policies::new(options.strictness);
        let global = |who| {
            let account = GLOBAL.into();
            Rc::new(Identity { who, account, policy: None, permissions: None, by_token: None })
        };
        let mut by_name = BTreeMap::new();
        let mut by_nkey = BTreeMap::new();
        for user in options.users {
            let (names, name, who, password) = match user.login {
                Login::Password { user: name, password } => {
                    let password = match password {
                        None if !options.map_certificates => Some(Secret::default()),
                        other => other,
                    };
                    (&mut by_name, name.clone(), Who::User(name), password)
                }
                Login::Nkey(key) => (&mut by_nkey, key.clone(), Who::Nkey(key), None),
            };
            let policy = user.permissions.as_ref().map(|rules| policies.of(rules));
            let known = Known {
                identity: Rc::new(Identity {
                    who,
                    account: user.account,
                    policy,
                    permissions: user.permissions,
                    by_token: None,
                }),
                password,
                connection_types: user.connection_types,
                proxy_required: user.proxy_required,
            };
            names.insert(name, known);
        }
        let no_auth = |name: String| {
            if by_nkey.contains_key(&name) { NoAuth::Nkey(name) } else { NoAuth::Name(name) }
        };
        let single = |(name, secret)| (global(Who::User(name)), secret);
        let token = |secret| (global(Who::Token), secret);
        let hidden = || NoAuth::Hidden(global(Who::User(hidden.into())));
        let clients = Gate {
            single: options.single.map(single),
            token: options.token.map(token),
            no_auth: options
                .no_auth_user
                .map(no_auth)
                .or_else(|| options.only_system_users.then(hidden)),
        };
        let mut web = clients.clone();
        if options.web.single.is_some() || options.web.token.is_some() {
            web.single = options.web.single.map(single);
            web.token = options.web.token.map(token);
        }
        if let Some(name) = options.web.no_auth_user {
            web.no_auth = Some(no_auth(name));
        }
        let secrets = by_name.values().filter_map(|known: &Known| known.password.as_ref());
        let gates = [&clients, &web].into_iter().filter_map(|gate| gate.single.as_ref());
        let decoy = decoy(secrets.chain(gates.map(|(_, secret)| secret)));
        Self {
            decoy,
            clients,
            web,
            anyone: global(Who::Anyone),
            map_certificates: options.map_certificates,
            certificates_alone: options.certificates_alone,
            by_name,
            by_nkey,
            trusted_proxies: options.trusted_proxies,
            proxy_required: options.proxy_required,
            by_token: options.by_token,
        }
    }

    fn gate(&self, connection: ConnectionType) -> &Gate {
        if connection == ConnectionType::WebSocket { &self.web } else { &self.clients }
    }

    /// Does anybody have to sign in who comes this way?
    pub fn is_required(&self, connection: ConnectionType) -> bool {
        let gate = self.gate(connection);
        self.by_token || self.has_users() || gate.single.is_some() || gate.token.is_some()
    }

    /// Does the first INFO of the client port say so? Not where a configured user stands for
    /// those without credentials.
    pub fn is_announced(&self) -> bool {
        let hides = matches!(self.clients.no_auth, Some(NoAuth::Name(_) | NoAuth::Nkey(_)));
        self.is_required(ConnectionType::Standard) && !hides
    }

    /// Must INFO carry a nonce?
    pub fn needs_nonce(&self) -> bool {
        self.by_token || !self.by_nkey.is_empty() || !self.trusted_proxies.is_empty()
    }

    fn has_users(&self) -> bool {
        !self.by_name.is_empty() || !self.by_nkey.is_empty()
    }

    /// Who somebody is that sends something else than CONNECT first. As in nats-server a
    /// user with a key does not stand in here.
    pub fn without_connect(&self, connection: ConnectionType) -> Option<Rc<Identity>> {
        if !self.is_required(connection) {
            return Some(self.anyone.clone());
        }
        if self.by_token {
            return None;
        }
        match self.gate(connection).no_auth.as_ref()? {
            NoAuth::Hidden(identity) => Some(identity.clone()),
            NoAuth::Nkey(_) => None,
            NoAuth::Name(_) if self.must_show_certificate(connection) => None,
            NoAuth::Name(name) => self
                .by_name
                .get(name)
                .filter(|known| known.may_connect_as(connection) && !self.wants_proxy(known))
                .map(|known| known.identity.clone()),
        }
    }

    fn must_show_certificate(&self, connection: ConnectionType) -> bool {
        self.certificates_alone && connection == ConnectionType::Standard
    }

    fn wants_proxy(&self, known: &Known) -> bool {
        known.proxy_required || self.proxy_required
    }

    /// What comes of a CONNECT: the place where it is decided.
    pub fn sign_in(&self, credentials: &Credentials<'_>, peer: &Peer<'_>) -> Verdict {
        match (self.judge(credentials, peer), &self.decoy) {
            (Verdict::Refused(Refusal::Unknown), Some((nobody, hash)))
                if !credentials.user.is_empty() =>
            {
                let (identity, hash) = (nobody.clone(), hash.clone());
                Verdict::Hashed { identity, hash, password: credentials.password.clone() }
            }
            (verdict, _) => verdict,
        }
    }

    fn judge(&self, credentials: &Credentials<'_>, peer: &Peer<'_>) -> Verdict {
        let through_proxy = match self.proxy(credentials, peer) {
            Ok(through_proxy) => through_proxy,
            Err(refusal) => return Verdict::Refused(refusal),
        };
        if !self.is_required(peer.connection) {
            if self.proxy_required && !through_proxy {
                return Verdict::Refused(Refusal::ProxyRequired);
            }
            return Verdict::Accepted(self.anyone.clone());
        }
        if self.has_users() {
            return self.user(credentials, peer, through_proxy);
        }
        if self.proxy_required && !through_proxy {
            return Verdict::Refused(Refusal::ProxyRequired);
        }
        let gate = self.gate(peer.connection);
        if let Some((identity, token)) = &gate.token {
            return compare(identity, token, credentials.token);
        }
        match &gate.single {
            Some((identity, password)) if matches!(&identity.who, Who::User(name) if name == credentials.user) => {
                compare(identity, password, credentials.password)
            }
            _ => Verdict::Refused(Refusal::Unknown),
        }
    }

    /// Did it come through a trusted proxy?
    pub fn proxy(&self, credentials: &Credentials<'_>, peer: &Peer<'_>) -> Result<bool, Refusal> {
        if self.trusted_proxies.is_empty() || credentials.proxy_signature.is_empty() {
            return Ok(false);
        }
        let signature = data_encoding::BASE64URL_NOPAD
            .decode(credentials.proxy_signature.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let trusted = signature.is_some_and(|signature| {
            self.trusted_proxies.iter().any(|key| key.verify(peer.nonce.as_bytes(), &signature))
        });
        if trusted && !peer.nonce.is_empty() { Ok(true) } else { Err(Refusal::ProxyNotTrusted) }
    }

    fn user(&self, credentials: &Credentials<'_>, peer: &Peer<'_>, through_proxy: bool) -> Verdict {
        let anonymous = credentials.user.is_empty()
            && credentials.password.expose().is_empty()
            && credentials.token.expose().is_empty();
        let named_key = !credentials.nkey.is_empty() && !self.by_nkey.is_empty();
        // How the user is known, and whether it has shown that it is the one.
        let (known, mapped, excused) = if named_key {
            (self.by_nkey.get(credentials.nkey), false, false)
        } else if let Some(certificate) = peer.certificate.filter(|_| self.map_certificates) {
            let names = self.by_name.keys().map(String::as_str);
            match certificate.user(&names).and_then(|name| self.by_name.get(name)) {
                Some(known) => (Some(known), true, false),
                None => {
                    let subject = certificate.subject_as_go();
                    return Verdict::Refused(Refusal::CertificateUnknown(subject));
                }
            }
        } else if self.must_show_certificate(peer.connection) {
            (None, false, false)
        } else if anonymous {
            match &self.gate(peer.connection).no_auth {
                None => (None, false, false),
                Some(NoAuth::Name(name)) => (self.by_name.get(name), false, true),
                Some(NoAuth::Nkey(key)) => (self.by_nkey.get(key), false, true),
                Some(NoAuth::Hidden(identity)) => return Verdict::Accepted(identity.clone()),
            }
        } else {
            (self.by_name.get(credentials.user), false, false)
        };
        let Some(known) = known.filter(|known| known.may_connect_as(peer.connection)) else {
            return Verdict::Refused(Refusal::Unknown);
        };
        if self.wants_proxy(known) && !through_proxy {
            return Verdict::Refused(Refusal::ProxyRequired);
        }
        if excused {
            return Verdict::Accepted(known.identity.clone());
        }
        if let Who::Nkey(key) = &known.identity.who {
            return match check_signature(key, credentials.signature, peer.nonce) {
                Ok(()) => Verdict::Accepted(known.identity.clone()),
                Err(refusal) => Verdict::Refused(refusal),
            };
        }
        match &known.password {
            Some(password) => compare(&known.identity, password, credentials.password),
            // The certificate has shown who it is; a password it should not have is wrong.
            None if mapped && credentials.password.expose().is_empty() => {
                Verdict::Accepted(known.identity.clone())
            }
            None => Verdict::Refused(Refusal::Unknown),
        }
    }

    /// Is there still such a user, in the same account? Whether it could still sign in is
    /// for [`Self::sign_in`] to say.
    pub fn has(&self, identity: &Identity) -> bool {
        let is = |ours: &Identity| ours.who == identity.who && ours.account == identity.account;
        let mut gates = [&self.clients, &self.web].into_iter();
        match &identity.who {
            Who::Anyone => true,
            Who::User(name) => {
                self.by_name.get(name).is_some_and(|known| is(&known.identity))
                    || gates.any(|gate| {
                        gate.single.as_ref().is_some_and(|(ours, _)| is(ours))
                            || matches!(&gate.no_auth, Some(NoAuth::Hidden(ours)) if is(ours))
                    })
            }
            Who::Nkey(key) => self.by_nkey.get(key).is_some_and(|known| is(&known.identity)),
            Who::Token => gates.any(|gate| gate.token.is_some()),
        }
    }
}

/// Policies by the permissions they were made from, so that users share them.
struct Policies {
    strictness: Strictness,
    made: BTreeMap<*const Permissions, Rc<Policy>>,
}

impl Policies {
    fn new(strictness: Strictness) -> Self {
        Self { strictness, made: BTreeMap::new() }
    }

    fn of(&mut self, permissions: &Rc<Permissions>) -> Rc<Policy> {
        let make = || Rc::new(Policy::new(permissions, self.strictness));
        self.made.entry(Rc::as_ptr(permissions)).or_insert_with(make).clone()
    }
}

/// Is this secret of the configuration a bcrypt hash rather than the text itself?
pub fn is_hash(secret: &str) -> bool {
    let bytes = secret.as_bytes();
    matches!(
        bytes,
        [b'$', b'2', b'a' | b'b' | b'x' | b'y', b'$', tens, ones, b'$', ..]
            if tens.is_ascii_digit() && ones.is_ascii_digit()
    )
}

/// A hash that costs as much as the costliest of these, and that nothing has; with somebody
/// who is in no account.
fn decoy<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Option<(Rc<Identity>, Secret)> {
    /// `$2b$11$` and the salt; 31 characters of hash follow.
    const SALTED: usize = 29;
    let cost = |secret: &&Secret| secret.expose().get(4..6).map(String::from);
    let hash = secrets.filter(|secret| is_hash(secret.expose())).max_by_key(cost)?;
    let hash = Secret::new(alloc::format!("{}{:.<31}", hash.expose().get(..SALTED)?, ""));
    let identity = Identity {
        who: Who::Anyone,
        account: String::new(),
        policy: None,
        permissions: None,
        by_token: None,
    };
    Some((Rc::new(identity), hash))
}

fn compare(identity: &Rc<Identity>, ours: &Secret, theirs: &Secret) -> Verdict {
    if is_hash(ours.expose()) {
        return Verdict::Hashed {
            identity: identity.clone(),
            hash: ours.clone(),
            password: theirs.clone(),
        };
    }
    if same(ours.expose().as_bytes(), theirs.expose().as_bytes()) {
        Verdict::Accepted(identity.clone())
    } else {
        Verdict::Refused(Refusal::Unknown)
    }
}

/// Comparison in a time that does not tell how much agreed.
fn same(ours: &[u8], theirs: &[u8]) -> bool {
    let difference = ours.iter().zip(theirs).fold(0, |sum, (a, b)| sum | (a ^ b));
    ours.len() == theirs.len() && core::hint::black_box(difference) == 0
}

fn check_signature(key: &str, signature: &str, nonce: &str) -> Result<(), Refusal> {
    if signature.is_empty() {
        return Err(Refusal::SignatureMissing);
    }
    let bytes = data_encoding::BASE64URL_NOPAD
        .decode(signature.as_bytes())
        .or_else(|_| data_encoding::BASE64.decode(signature.as_bytes()))
        .map_err(|_| Refusal::SignatureNotBase64)?;
    let key: PublicKey = key.parse().map_err(|_| Refusal::SignatureWrong)?;
    let signature: [u8; 64] = bytes.try_into().map_err(|_| Refusal::SignatureWrong)?;
    let good = key.kind() == KeyKind::User
        && !nonce.is_empty()
        && key.verify(nonce.as_bytes(), &signature);
    if good { Ok(()) } else { Err(Refusal::SignatureWrong) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::nkey::Seed;
    use alloc::string::ToString;
    use alloc::vec;

    const NONCE: &str = "sHdiMRp3oQSGbFw";

    fn user(name: &str, password: Option<&str>) -> User {
        User {
            login: Login::Password { user: name.into(), password: password.map(Secret::new) },
            account: GLOBAL.into(),
            permissions: None,
            connection_types: Vec::new(),
            proxy_required: false,
        }
    }

    fn seed(byte: u8) -> Seed {
        Seed::from_bytes(KeyKind::User, [byte; 32])
    }

    fn public(seed: &Seed) -> String {
        seed.public_key().unwrap().to_string()
    }

    fn signature(seed: &Seed, nonce: &str) -> String {
        data_encoding::BASE64URL_NOPAD.encode(&seed.sign(nonce.as_bytes()).unwrap())
    }

    fn nkey(seed: &Seed) -> User {
        User { login: Login::Nkey(public(seed)), ..user("", None) }
    }

    #[derive(Default)]
    struct Claim {
        user: &'static str,
        password: &'static str,
        token: &'static str,
        nkey: String,
        signature: String,
        proxy: String,
        certificate: Option<Certificate>,
        no_nonce: bool,
    }

    #[expect(clippy::needless_pass_by_value, reason = "claims are written where they are used")]
    fn sign_in(options: &SignInOptions, claim: Claim) -> Result<Who, Refusal> {
        let directory = Directory::new(options.clone(), "nats-hidden");
        let credentials = Credentials {
            user: claim.user,
            password: &Secret::new(claim.password),
            token: &Secret::new(claim.token),
            nkey: &claim.nkey,
            signature: &claim.signature,
            proxy_signature: &claim.proxy,
        };
        let peer = Peer {
            nonce: if claim.no_nonce { "" } else { NONCE },
            connection: ConnectionType::Standard,
            certificate: claim.certificate.as_ref(),
        };
        match directory.sign_in(&credentials, &peer) {
            Verdict::Accepted(identity) => Ok(identity.who.clone()),
            Verdict::Hashed { .. } => panic!("no test here has a hash"),
            Verdict::Refused(refusal) => Err(refusal),
        }
    }

    /// The verdict on a client that has this name and password and nothing else.
    fn by_password(directory: &Directory, user: &str, password: &str) -> Verdict {
        let credentials = Credentials {
            user,
            password: &Secret::new(password),
            token: &Secret::default(),
            nkey: "",
            signature: "",
            proxy_signature: "",
        };
        let peer = Peer { nonce: "", connection: ConnectionType::Standard, certificate: None };
        directory.sign_in(&credentials, &peer)
    }

    fn users(users: Vec<User>) -> SignInOptions {
        SignInOptions { users, ..SignInOptions::default() }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with what may be refused")]
    fn name(name: &str) -> Result<Who, Refusal> {
        Ok(Who::User(name.into()))
    }

    const UNKNOWN: Result<Who, Refusal> = Err(Refusal::Unknown);

    #[test]
    fn everybody_is_let_in_where_nobody_is_configured() {
        let open = SignInOptions::default();
        let claim = Claim { user: "u", password: "p", token: "t", ..Claim::default() };
        assert_eq!(sign_in(&open, claim), Ok(Who::Anyone));
        assert!(!Directory::new(open, "").is_required(ConnectionType::Standard));
    }

    #[test]
    fn a_name_needs_its_password() {
        let options = users(vec![user("u", Some("p")), user("np", None)]);
        for (user, password, expected) in [
            ("u", "p", name("u")),
            ("u", "", UNKNOWN),
            ("u", "px", UNKNOWN),
            ("u", "q", UNKNOWN),
            ("", "p", UNKNOWN),
            ("", "", UNKNOWN),
            ("x", "p", UNKNOWN),
            ("np", "", name("np")),
            ("np", "x", UNKNOWN),
        ] {
            let claim = Claim { user, password, ..Claim::default() };
            assert_eq!(sign_in(&options, claim), expected, "{user} {password}");
        }
        let claim = Claim { token: "p", ..Claim::default() };
        assert_eq!(sign_in(&options, claim), UNKNOWN);
    }

    #[test]
    fn a_token_or_a_single_user_is_all_that_opens_such_a_server() {
        let token = SignInOptions { token: Some(Secret::new("t")), ..SignInOptions::default() };
        let claim = |user, password, token| Claim { user, password, token, ..Claim::default() };
        assert_eq!(sign_in(&token, claim("", "", "t")), Ok(Who::Token));
        assert_eq!(sign_in(&token, claim("t", "t", "")), UNKNOWN);
        let single = Some(("u".into(), Secret::new("p")));
        let single = SignInOptions { single, ..SignInOptions::default() };
        assert_eq!(sign_in(&single, claim("u", "p", "")), name("u"));
        assert_eq!(sign_in(&single, claim("v", "p", "")), UNKNOWN);
        assert_eq!(sign_in(&single, claim("", "", "")), UNKNOWN);
    }

    #[test]
    fn a_key_needs_a_signature_of_this_nonce() {
        let (ours, other) = (seed(1), seed(2));
        let options = users(vec![nkey(&ours), user("u", Some("p"))]);
        let claim = |nkey, signature| Claim { nkey, signature, ..Claim::default() };
        let good = signature(&ours, NONCE);
        let key = public(&ours);
        assert_eq!(sign_in(&options, claim(key.clone(), good.clone())), Ok(Who::Nkey(key.clone())));
        let standard = data_encoding::BASE64.encode(&ours.sign(NONCE.as_bytes()).unwrap());
        assert!(sign_in(&options, claim(key.clone(), standard)).is_ok());
        for (signature, why) in [
            (String::new(), Refusal::SignatureMissing),
            ("!".into(), Refusal::SignatureNotBase64),
            ("AAAA".into(), Refusal::SignatureWrong),
            (signature(&ours, "another nonce"), Refusal::SignatureWrong),
            (signature(&other, NONCE), Refusal::SignatureWrong),
            (signature(&ours, ""), Refusal::SignatureWrong),
        ] {
            assert_eq!(sign_in(&options, claim(key.clone(), signature)), Err(why));
        }
        let none = Claim {
            nkey: key.clone(),
            signature: signature(&ours, ""),
            no_nonce: true,
            ..Claim::default()
        };
        assert_eq!(sign_in(&options, none), Err(Refusal::SignatureWrong));
        assert_eq!(sign_in(&options, claim(public(&other), signature(&other, NONCE))), UNKNOWN);
        // A key comes before a password, and a wrong one is not forgiven.
        let both = Claim {
            user: "u",
            password: "p",
            nkey: public(&other),
            signature: signature(&other, NONCE),
            ..Claim::default()
        };
        assert_eq!(sign_in(&options, both), UNKNOWN);
        // The key itself is no password.
        let sly = Claim { user: "UAB", password: "", ..Claim::default() };
        assert_eq!(sign_in(&options, sly), UNKNOWN);
    }

    #[test]
    fn those_without_credentials_are_the_no_auth_user() {
        let key = seed(1);
        let list = vec![user("u", Some("p")), user("v", Some("p")), nkey(&key)];
        let mut options = users(list);
        options.no_auth_user = Some("u".into());
        let claim = |user, password, token| Claim { user, password, token, ..Claim::default() };
        assert_eq!(sign_in(&options, claim("", "", "")), name("u"));
        for claim in
            [claim("v", "", ""), claim("", "p", ""), claim("", "", "t"), claim("u", "", "")]
        {
            assert_eq!(sign_in(&options, claim), UNKNOWN);
        }
        let directory = Directory::new(options.clone(), "");
        let required = directory.is_required(ConnectionType::Standard);
        assert!(required && !directory.is_announced());
        assert!(directory.without_connect(ConnectionType::Standard).is_some());
        options.no_auth_user = Some(public(&key));
        assert_eq!(sign_in(&options, claim("", "", "")), Ok(Who::Nkey(public(&key))));
        let directory = Directory::new(options, "");
        assert!(directory.without_connect(ConnectionType::Standard).is_none());
    }

    #[test]
    fn a_server_with_system_users_only_lets_others_into_the_global_account() {
        let system = User { account: "$SYS".into(), ..user("s", Some("p")) };
        let options = SignInOptions { only_system_users: true, ..users(vec![system]) };
        assert_eq!(sign_in(&options, Claim::default()), name("nats-hidden"));
        let claim = Claim { user: "nats-hidden", ..Claim::default() };
        assert_eq!(sign_in(&options, claim), UNKNOWN);
        assert!(Directory::new(options, "").is_announced());
    }

    #[test]
    fn the_way_to_connect_is_part_of_the_user() {
        let only = |kind| User { connection_types: vec![kind], ..user("u", Some("p")) };
        let claim = || Claim { user: "u", password: "p", ..Claim::default() };
        assert_eq!(sign_in(&users(vec![only(ConnectionType::WebSocket)]), claim()), UNKNOWN);
        assert_eq!(sign_in(&users(vec![only(ConnectionType::Standard)]), claim()), name("u"));
        let mut options = users(vec![only(ConnectionType::WebSocket)]);
        options.no_auth_user = Some("u".into());
        assert_eq!(sign_in(&options, Claim::default()), UNKNOWN);
        let directory = Directory::new(options, "");
        assert!(directory.without_connect(ConnectionType::Standard).is_none());
    }

    #[test]
    fn a_certificate_is_a_user_and_nothing_else_counts() {
        let options = SignInOptions {
            map_certificates: true,
            ..users(vec![user("a@acme.com", None), user("u", Some("p"))])
        };
        let certificate = |email: &str| {
            Some(Certificate { emails: vec![email.into()], ..Certificate::default() })
        };
        let claim =
            |user, password, certificate| Claim { user, password, certificate, ..Claim::default() };
        let mapped = certificate("a@acme.com");
        assert_eq!(sign_in(&options, claim("", "", mapped.clone())), name("a@acme.com"));
        assert_eq!(sign_in(&options, claim("u", "", mapped.clone())), name("a@acme.com"));
        assert_eq!(sign_in(&options, claim("u", "p", mapped)), UNKNOWN);
        let unknown = sign_in(&options, claim("u", "p", certificate("x@acme.com")));
        assert!(matches!(unknown, Err(Refusal::CertificateUnknown(_))));
        // Without its certificate such a user cannot sign in.
        assert_eq!(sign_in(&options, claim("a@acme.com", "", None)), UNKNOWN);
        // Others can, unless their port knows them by certificates alone.
        assert_eq!(sign_in(&options, claim("u", "p", None)), name("u"));
        let options =
            SignInOptions { certificates_alone: true, no_auth_user: Some("u".into()), ..options };
        assert_eq!(sign_in(&options, claim("u", "p", None)), UNKNOWN);
        assert_eq!(sign_in(&options, claim("", "", None)), UNKNOWN);
        let directory = Directory::new(options, "");
        assert!(directory.without_connect(ConnectionType::Standard).is_none());
    }

    #[test]
    fn a_trusted_proxy_signs_the_nonce() {
        let (proxy, other) = (seed(7), seed(8));
        let needs = User { proxy_required: true, ..user("u", Some("p")) };
        let trusted_proxies = vec![proxy.public_key().unwrap()];
        let options = SignInOptions { trusted_proxies, ..users(vec![needs, user("v", Some("p"))]) };
        let claim = |user, proxy| Claim { user, password: "p", proxy, ..Claim::default() };
        assert_eq!(sign_in(&options, claim("u", signature(&proxy, NONCE))), name("u"));
        assert_eq!(sign_in(&options, claim("u", String::new())), Err(Refusal::ProxyRequired));
        let wrong = Err(Refusal::ProxyNotTrusted);
        assert_eq!(sign_in(&options, claim("v", signature(&other, NONCE))), wrong);
        assert_eq!(sign_in(&options, claim("v", "rubbish".into())), wrong);
        assert_eq!(sign_in(&options, claim("v", String::new())), name("v"));
        let options = SignInOptions { proxy_required: true, ..options };
        assert_eq!(sign_in(&options, claim("v", String::new())), Err(Refusal::ProxyRequired));
    }

    #[test]
    fn a_hash_is_told_from_a_text_as_nats_server_does() {
        for hash in ["$2a$11$x", "$2b$05$", "$2x$99$y", "$2y$10$abc"] {
            assert!(is_hash(hash), "{hash}");
        }
        for text in ["$2a$x", "$2c$11$x", "2a$11$x", "$2a$1$x", "", "$2a$11"] {
            assert!(!is_hash(text), "{text}");
        }
        let hash = "$2a$05$abcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfSa";
        let directory = Directory::new(users(vec![user("u", Some(hash))]), "");
        let verdict = by_password(&directory, "u", hash);
        assert!(matches!(verdict, Verdict::Hashed { .. }), "the hash is no password");
    }

    #[test]
    fn whoever_is_unknown_costs_as_much_as_a_wrong_password() {
        let hash = "$2a$09$abcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfSa";
        let cheap = hash.replace("09", "05");
        let directory = Directory::new(
            users(vec![
                user("u", Some(hash)),
                user("cheap", Some(&cheap)),
                user("plain", Some("text")),
                User { connection_types: vec![ConnectionType::WebSocket], ..user("w", Some(hash)) },
            ]),
            "",
        );
        for name in ["u", "nobody", "plain", "w"] {
            let Verdict::Hashed { hash: compared, identity, .. } =
                by_password(&directory, name, "wrong")
            else {
                panic!("{name} is told at once");
            };
            assert!(compared.expose().starts_with(&hash[..29]), "{name}");
            assert_eq!((compared.expose().len(), name == "u"), (60, identity.account == GLOBAL));
        }
        let plain = Directory::new(users(vec![user("plain", Some("text"))]), "");
        assert!(plain.decoy.is_none());
    }

    #[test]
    fn users_with_the_same_rules_share_them() {
        let rules = Rc::new(Permissions::default());
        let with = |name| User { permissions: Some(rules.clone()), ..user(name, Some("p")) };
        let directory = Directory::new(users(vec![with("a"), with("b")]), "");
        let policy = |name: &str| directory.by_name[name].identity.policy.clone().unwrap();
        assert!(Rc::ptr_eq(&policy("a"), &policy("b")));
    }
}
