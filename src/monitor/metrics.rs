//! `/metrics`: the numbers a fleet is watched by, in the text format of Prometheus.
//!
//! Owns names, units and help. No label takes a value that clients choose, so the number of
//! series is fixed but for the configured remotes.

use std::fmt::{Display, Write as _};

use super::{Monitor, Scene, between, process};

/// Appends families of samples.
struct Families(String);

impl Families {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP sedge_{name} {help}\n# TYPE sedge_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: &dyn Display) {
        let _ = writeln!(self.0, "sedge_{name}{labels} {value}");
    }

    fn one(&mut self, kind: &str, name: &str, help: &str, value: &dyn Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.one("gauge", name, help, &value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.one("counter", name, help, &value);
    }

    /// Samples that differ in one label.
    fn many(&mut self, kind: &str, name: &str, help: &str, label: &str, samples: &[(&str, u64)]) {
        self.family(name, kind, help);
        for (value, number) in samples {
            self.sample(name, &format!("{{{label}=\"{value}\"}}"), number);
        }
    }
}

impl Monitor {
    pub(super) fn metrics(&self, scene: Scene<'_>) -> String {
        let mut out = Families(String::with_capacity(8 * 1024));
        let broker = scene.broker;
        let totals = broker.totals();
        out.family("build_info", "gauge", "Version of the server.");
        let version = env!("CARGO_PKG_VERSION");
        out.sample("build_info", &format!("{{version=\"{version}\"}}"), &1);
        let uptime = between(self.settings.start, scene.now.wall).as_secs_f64();
        out.one("gauge", "uptime_seconds", "Time since the start.", &uptime);
        let cpu = process::processor_time().as_secs_f64();
        out.one("counter", "cpu_seconds_total", "Processor time of all threads.", &cpu);
        out.gauge("memory_resident_bytes", "Resident memory.", process::resident_bytes());

        let connections = [("client", totals.clients as u64), ("leaf", totals.leafs as u64)];
        out.many("gauge", "connections", "Connections open now.", "kind", &connections);
        out.gauge(
            "connections_max",
            "Clients that may be connected at once (max_connections).",
            broker.options().max_connections as u64,
        );
        out.counter(
            "connections_opened_total",
            "Client connections opened.",
            totals.total_connections,
        );
        out.counter("connections_closed_total", "Connections closed.", broker.closed_total());
        out.gauge("subscriptions", "Subscriptions, the server's own too.", {
            totals.subscriptions as u64
        });
        let (clients, leafs) = (totals.client_counts, totals.leaf_counts);
        for (name, help, client, leaf) in [
            ("messages_in_total", "Messages received.", clients.msgs_in, leafs.msgs_in),
            ("messages_out_total", "Messages delivered.", clients.msgs_out, leafs.msgs_out),
            (
                "message_bytes_in_total",
                "Header and payload bytes received.",
                clients.bytes_in,
                leafs.bytes_in,
            ),
            (
                "message_bytes_out_total",
                "Header and payload bytes delivered.",
                clients.bytes_out,
                leafs.bytes_out,
            ),
            (
                "slow_consumers_total",
                "Connections closed because they did not read.",
                totals.slow_consumers.clients,
                totals.slow_consumers.leafs,
            ),
            (
                "stale_connections_total",
                "Connections closed because they did not answer PING.",
                totals.stale.clients,
                totals.stale.leafs,
            ),
        ] {
            out.many("counter", name, help, "kind", &[("client", client), ("leaf", leaf)]);
        }
        out.counter(
            "stalls_total",
            "Times a publisher was held back for a slow receiver.",
            totals.stalls,
        );
        out.gauge(
            "pending_bytes",
            "Bytes that wait for receivers to read.",
            totals.pending_bytes as u64,
        );
        out.family("http_requests_total", "counter", "Requests to the monitoring port.");
        for (path, count) in self.request_counts() {
            out.sample("http_requests_total", &format!("{{path=\"{path}\"}}"), &count);
        }
        self.jetstream_metrics(&mut out, scene);
        self.leaf_metrics(&mut out, scene);
        out.0
    }

    #[expect(clippy::unused_self, reason = "beside the other parts of the page")]
    fn jetstream_metrics(&self, out: &mut Families, scene: Scene<'_>) {
        let Some((_, js)) = scene.broker.jetstreams().next() else { return };
        let numbers = scene.jetstream_numbers();
        out.gauge("jetstream_streams", "Streams.", numbers.streams as u64);
        out.gauge("jetstream_consumers", "Consumers.", numbers.consumers as u64);
        out.gauge("jetstream_messages", "Messages in all streams.", numbers.messages);
        let by_storage = |memory, file| [("memory", memory), ("file", file)];
        out.many(
            "gauge",
            "jetstream_bytes",
            "Bytes in all streams.",
            "storage",
            &by_storage(numbers.memory, numbers.storage),
        );
        out.many(
            "gauge",
            "jetstream_reserved_bytes",
            "Bytes promised to streams by max_bytes.",
            "storage",
            &by_storage(numbers.reserved_memory, numbers.reserved_storage),
        );
        let options = js.settings();
        let limit = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        out.many(
            "gauge",
            "jetstream_limit_bytes",
            "Bytes all streams may take (max_mem, max_file).",
            "storage",
            &by_storage(limit(options.max_memory), limit(options.max_storage)),
        );
        out.counter("jetstream_api_requests_total", "Requests of the API.", numbers.api_total);
        out.counter("jetstream_api_errors_total", "Of these, refused.", numbers.api_errors);
        let healthy = u64::from(js.is_recovered() && js.trouble().is_none());
        out.gauge("jetstream_healthy", "1 while the store takes writes.", healthy);
        let Some(store) = scene.store else { return };
        out.counter("store_commits_total", "Commits of the store.", store.commits);
        out.counter("store_syncs_total", "Syncs of the store's file.", store.syncs);
        out.counter("store_writes_total", "Writes to the store's file.", store.writes);
        out.counter(
            "store_written_bytes_total",
            "Bytes written to the store's file: what wears flash.",
            store.bytes_written,
        );
        out.gauge("store_file_bytes", "Length of the store's file.", store.file_bytes);
    }

    fn leaf_metrics(&self, out: &mut Families, scene: Scene<'_>) {
        if self.settings.remotes.is_empty() {
            return;
        }
        let names: Vec<String> = self
            .settings
            .remotes
            .iter()
            .enumerate()
            .map(|(index, remote)| {
                let url = remote.urls.first().map_or("", String::as_str);
                let shown = url.replace(['"', '\\', '\n'], "");
                format!("{{remote=\"{index}\",url=\"{shown}\"}}")
            })
            .collect();
        let mut views = Vec::new();
        views.resize_with(names.len(), || None);
        for leaf in scene.broker.leaf_views(scene.now) {
            if let Some(slot) = views.get_mut(leaf.remote) {
                *slot = Some(leaf.conn);
            }
        }
        out.family("leaf_connected", "gauge", "1 while the remote is connected.");
        for (name, view) in names.iter().zip(&views) {
            out.sample("leaf_connected", name, &u64::from(view.is_some()));
        }
        out.family("leaf_rtt_seconds", "gauge", "Round trip to the remote.");
        for (name, view) in names.iter().zip(&views) {
            if let Some(view) = view.filter(|view| !view.rtt.is_zero()) {
                out.sample("leaf_rtt_seconds", name, &view.rtt.as_secs_f64());
            }
        }
    }
}
