//! The `sedge` binary.
use sedge::broker::{Broker, Notice, options::Options};
use sedge::net::clock::Clock;
use sedge::server::run::{Print, Server};
struct P;
impl Print for P {
    fn print(&mut self, _now: sedge::time::Now, notice: &Notice) { eprintln!("[1] 2026/11/24 00:00:00.000000 [INF] {}", notice.text); }
    fn reopen(&mut self, _now: sedge::time::Now) {}
}
fn main() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let port = listener.local_addr().expect("addr").port();
    let broker = Broker::new(Options { server_id: "NTEST".into(), port, ..Options::default() }, None, 1);
    let mut s = Server::new(broker, Clock::new(), P, |_| Ok(None)).expect("server");
    s.listen(listener).expect("listen");
    eprintln!("[1] 2026/11/24 00:00:00.000000 [INF] Listening for client connections on 127.0.0.1:{port}");
    eprintln!("[1] 2026/11/24 00:00:00.000000 [INF] Server is ready");
    s.run().expect("run");
}
