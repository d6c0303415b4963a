//! One publisher and one subscriber over TLS, and what idle clients under TLS cost.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::footprint::settle;
use super::{Arm, Bench, Budget, Meter, RATE, Row, Sample, Scenario};
use crate::clock;
use crate::error::{Error, Result};
use crate::raw::{connect_line, frame_bytes, publications};
use crate::report::Unit;
use crate::server::Server;

const SUBJECT: &str = "bench.load";
const PAYLOAD: usize = 128;
/// Longest wait for a byte.
const IO_TIMEOUT: Duration = Duration::from_secs(20);
const IDLE_CLIENTS: usize = 300;
const CLIENT_KIB: &str = "client_kib";

/// The scenarios of this module.
pub(super) fn scenarios() -> Vec<Scenario> {
    let load = Scenario::new(
        "1 -> 1, 128 B, TLS",
        run,
        &[Row::new(RATE, Unit::PerSecond, Budget::RatioMin(1.5))],
    );
    let idle = Scenario::new(
        format!("{IDLE_CLIENTS} idle clients, TLS"),
        idle,
        &[Row::new(CLIENT_KIB, Unit::Kib, Budget::Max(24.0)).label("memory a client")],
    );
    let mut all = vec![load, idle];
    for arm in all.iter_mut().flat_map(|scenario| &mut scenario.arms) {
        arm.setup.tls = true;
    }
    all
}

/// A client under TLS that has signed in.
struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    fn connect(addr: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let mut socket = TcpStream::connect_timeout(&addr, IO_TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(IO_TIMEOUT))?;
        socket.set_write_timeout(Some(IO_TIMEOUT))?;
        // INFO comes in the clear, one byte at a time so that none of TLS is taken.
        let mut byte = [0];
        while byte != *b"\n" {
            socket.read_exact(&mut byte)?;
        }
        let name =
            ServerName::try_from("localhost").map_err(|error| Error::new(error.to_string()))?;
        let session =
            ClientConnection::new(Arc::clone(config), name).map_err(|error| tls(&error))?;
        let mut client = Self(StreamOwned::new(session, socket));
        client.0.write_all(connect_line(None).as_bytes())?;
        client.flush()?;
        Ok(client)
    }

    /// Waits until the server has seen everything.
    fn flush(&mut self) -> Result<()> {
        self.0.write_all(b"PING\r\n")?;
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while memchr::memmem::find(&seen, b"PONG\r\n").is_none() {
            let count = self.0.read(&mut buffer)?;
            if count == 0 {
                return Err(Error::new("the server closed a connection under TLS"));
            }
            seen.extend_from_slice(&buffer[..count]);
        }
        Ok(())
    }
}

fn tls(error: &rustls::Error) -> Error {
    Error::new(error.to_string()).during("TLS")
}

fn client_config(authority: &Path) -> Result<Arc<ClientConfig>> {
    let certificate = CertificateDer::from_pem_file(authority)
        .map_err(|error| Error::new(error.to_string()).during("the authority"))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|error| tls(&error))?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// Messages that have arrived, and how many are due in all, once that is known.
#[derive(Debug)]
struct Arrival {
    bytes: AtomicU64,
    due: AtomicU64,
}

fn receive(mut client: Client, arrival: &Arrival) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    while arrival.bytes.load(Ordering::Relaxed) < arrival.due.load(Ordering::Acquire) {
        match client.0.read(&mut buffer)? {
            0 => return Err(Error::new("the server closed the subscriber")),
            count => arrival.bytes.fetch_add(count as u64, Ordering::Relaxed),
        };
    }
    Ok(())
}

fn run(bench: &Bench, arm: Arm) -> Result<Sample> {
    let workdir = bench.workdir()?;
    let config = client_config(&workdir.certificates()?)?;
    let server = bench.start(arm, &workdir)?;
    let mut subscriber = Client::connect(server.addr, &config)?;
    subscriber.0.write_all(format!("SUB {SUBJECT} 1\r\n").as_bytes())?;
    subscriber.flush()?;
    let mut publisher = Client::connect(server.addr, &config)?;
    let (buffer, count) = publications(SUBJECT, PAYLOAD);
    let arrival = Arc::new(Arrival { bytes: AtomicU64::new(0), due: AtomicU64::new(u64::MAX) });
    let theirs = Arc::clone(&arrival);
    let thread = thread::spawn(move || receive(subscriber, &theirs));
    let frame = frame_bytes(SUBJECT, 1, PAYLOAD);
    let mut sent = 0;
    blast(&mut publisher, &buffer, clock::after(bench.warm_up))?;
    publisher.flush()?;
    let meter = Meter::start(&server)?;
    let (started, before) = (clock::now(), arrival.bytes.load(Ordering::Relaxed));
    sent += blast(&mut publisher, &buffer, clock::after(bench.measure))? * count;
    publisher.flush()?;
    // What the server has taken is on its way; the last of it may be counted a moment later.
    let elapsed = started.elapsed();
    let arrived = (arrival.bytes.load(Ordering::Relaxed) - before) / frame;
    let sample = meter.finish(arrived.min(sent), elapsed)?;
    arrival.due.store(0, Ordering::Release);
    // One more message ends the subscriber's wait.
    publisher.0.write_all(&buffer)?;
    publisher.flush()?;
    thread.join().map_err(|_| Error::new("the subscriber panicked"))??;
    Ok(sample)
}

fn blast(publisher: &mut Client, buffer: &[u8], until: Instant) -> Result<u64> {
    let mut count = 0;
    while clock::now() < until {
        publisher.0.write_all(buffer)?;
        count += 1;
    }
    Ok(count)
}

fn idle(bench: &Bench, arm: Arm) -> Result<Sample> {
    let workdir = bench.workdir()?;
    let config = client_config(&workdir.certificates()?)?;
    let server: Server = bench.start(arm, &workdir)?;
    let _first = Client::connect(server.addr, &config)?;
    settle();
    let before = server.usage()?.rss_bytes;
    let clients = (0..IDLE_CLIENTS)
        .map(|_| Client::connect(server.addr, &config))
        .collect::<Result<Vec<_>>>()?;
    settle();
    let after = server.usage()?.rss_bytes;
    let each = after.saturating_sub(before) as f64 / clients.len() as f64;
    Ok(Sample::from([(CLIENT_KIB, each / 1024.0)]))
}
