//! What the server's own events say, and where they are published.
//!
//! Owns their subjects and members. Does not own when they happen (`crate::broker::events`).
//!
//! Source: NATS docs, "System Events & Services"; seen from nats-server 2.15.1.

use super::{Json, Monitor, Scene, accounts, host_and_port};
use crate::broker::events::Event;
use crate::broker::view::ConnView;
use crate::id::AccountId;

/// A message of the server.
#[derive(Debug)]
pub struct Told {
    /// Where it is published.
    pub account: AccountId,
    /// Its subject.
    pub subject: String,
    /// JSON.
    pub payload: Vec<u8>,
}

impl Told {
    fn in_system(subject: String, json: Json) -> Self {
        Self { account: AccountId::SYSTEM, subject, payload: json.into_bytes() }
    }
}

impl Monitor {
    /// The messages that tell of an event.
    pub fn tell(&mut self, scene: Scene<'_>, event: &Event) -> Vec<Told> {
        let server = format!("$SYS.SERVER.{}", scene.broker.options().server_id);
        match event {
            Event::Connect(conn) => {
                let view = conn.view();
                let mut json = self.begin_event(scene, "advisory.v1.client_connect");
                client(&mut json, &view, false);
                json.close();
                let subject = format!("$SYS.ACCOUNT.{}.CONNECT", view.account);
                vec![Told::in_system(subject, json)]
            }
            Event::Disconnect(conn) => {
                let view = conn.view();
                let json = self.disconnect(scene, &view);
                let subject = format!("$SYS.ACCOUNT.{}.DISCONNECT", view.account);
                vec![Told::in_system(subject, json)]
            }
            Event::AuthError { conn, in_account } => {
                let json = self.disconnect(scene, &conn.view());
                if *in_account {
                    let (account, subject) =
                        (AccountId::GLOBAL, "$SYS.ACCOUNT.CLIENT.AUTH.ERR".to_owned());
                    return vec![Told { account, subject, payload: json.into_bytes() }];
                }
                vec![Told::in_system(format!("{server}.CLIENT.AUTH.ERR"), json)]
            }
            Event::Conns(account) => self.counts(scene, *account),
            Event::Statsz => {
                vec![Told::in_system(format!("{server}.STATSZ"), self.statsz(scene))]
            }
            Event::LameDuck | Event::Shutdown => {
                let mut json = Json::new();
                json.open();
                self.server(&mut json, scene);
                json.close();
                let what = if matches!(event, Event::Shutdown) { "SHUTDOWN" } else { "LAMEDUCK" };
                vec![Told::in_system(format!("{server}.{what}"), json)]
            }
        }
    }

    /// The number of connections of an account, under its subject of today and its old one.
    fn counts(&mut self, scene: Scene<'_>, account: AccountId) -> Vec<Told> {
        let name = scene.broker.account_name(account).to_owned();
        let id = self.rng.token(22);
        let mut told = Vec::new();
        for subject in [
            format!("$SYS.SERVER.ACCOUNT.{name}.CONNS"),
            format!("$SYS.ACCOUNT.{name}.SERVER.CONNS"),
        ] {
            if let Some(json) = self.account_connections(scene, account, &id) {
                told.push(Told::in_system(subject, json));
            }
        }
        told
    }

    /// What `CONNS` says of an account.
    pub(super) fn account_connections(
        &mut self,
        scene: Scene<'_>,
        account: AccountId,
        id: &str,
    ) -> Option<Json> {
        let stats = scene.broker.account_stats(account)?;
        let mut json = self.begin_event_as(scene, "advisory.v1.account_connections", id);
        accounts::stats(&mut json, &stats);
        json.close();
        Some(json)
    }

    fn disconnect(&mut self, scene: Scene<'_>, view: &ConnView<'_>) -> Json {
        let mut json = self.begin_event(scene, "advisory.v1.client_disconnect");
        client(&mut json, view, true);
        let counts = &view.counts;
        // As the client sees it.
        json.traffic("sent", counts.msgs_in, counts.bytes_in);
        json.traffic("received", counts.msgs_out, counts.bytes_out);
        json.text("reason", view.stop.map_or("", |(_, reason)| reason.text()));
        json.close();
        json
    }

    fn begin_event(&mut self, scene: Scene<'_>, kind: &str) -> Json {
        let id = self.rng.token(22);
        self.begin_event_as(scene, kind, &id)
    }

    /// How typed events begin; the rest and the end are the caller's.
    fn begin_event_as(&mut self, scene: Scene<'_>, kind: &str, id: &str) -> Json {
        let mut json = Json::new();
        json.open();
        json.text("type", &format!("io.nats.server.{kind}"));
        json.text("id", id);
        json.time("timestamp", scene.now.wall);
        json.open_at("server");
        self.server(&mut json, scene);
        json.close();
        json
    }
}

/// The connection an event is about.
fn client(json: &mut Json, view: &ConnView<'_>, ended: bool) {
    json.open_at("client");
    json.time("start", view.start);
    json.text_some("host", host_and_port(view.peer).0);
    json.number("id", view.cid);
    json.text("acc", view.account);
    if !view.is_leaf {
        json.text_some("user", view.user);
        json.text_some("name", view.name);
        json.text_some("lang", view.lang);
        json.text_some("ver", view.version);
    }
    if let Some((at, _)) = view.stop.filter(|_| ended) {
        json.number_some("rtt", crate::time::nanos(view.rtt));
        json.time("stop", at);
    }
    json.text("name_tag", view.account);
    json.text("kind", if view.is_leaf { "Leafnode" } else { "Client" });
    if !view.is_leaf {
        json.text("client_type", if view.is_web { "websocket" } else { "nats" });
    }
    json.close();
}
