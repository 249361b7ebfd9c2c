//! Toy origins: how many sessions each has, and an HTTP server that tells it in the answer to the probe.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub struct Origins {
    all: Vec<Arc<Origin>>,
}

struct Origin {
    address: SocketAddr,
    sessions: Mutex<Sessions>,
    alive: AtomicBool,
}

struct Sessions {
    count: f64,
    at: Instant,
    dwell_s: f64,
}

impl Sessions {
    /// Those who watched have left meanwhile with a mean length of the dwell.
    fn now(&mut self) -> f64 {
        let now = Instant::now();
        self.count *= (-(now - self.at).as_secs_f64() / self.dwell_s).exp();
        self.at = now;
        self.count
    }
}

impl Origins {
    pub fn start(count: usize, dwell_s: f64) -> Origins {
        let start = |_| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let origin = Arc::new(Origin {
                address: listener.local_addr().expect("it is bound"),
                sessions: Mutex::new(Sessions { count: 0.0, at: Instant::now(), dwell_s }),
                alive: AtomicBool::new(true),
            });
            let served = Arc::clone(&origin);
            thread::spawn(move || served.serve(&listener));
            origin
        };
        Origins { all: (0..count).map(start).collect() }
    }

    /// The address that DNS gives; nobody listens there.
    pub fn public(&self, region: usize) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, region as u8 + 1)
    }

    pub fn probed(&self, region: usize) -> SocketAddr {
        self.all[region].address
    }

    pub fn region_of(address: Ipv4Addr) -> usize {
        usize::from(address.octets()[3]) - 1
    }

    pub fn sessions(&self, region: usize) -> f64 {
        self.all[region].sessions.lock().expect("nobody panics with it").now()
    }

    /// One more viewer, or several. Those sent to a dead region stay without.
    pub fn begin(&self, region: usize, viewers: f64) {
        let origin = &self.all[region];
        if origin.alive.load(Relaxed) {
            let mut sessions = origin.sessions.lock().expect("nobody panics with it");
            sessions.now();
            sessions.count += viewers;
        }
    }

    pub fn is_alive(&self, region: usize) -> bool {
        self.all[region].alive.load(Relaxed)
    }

    /// All its connections end; gives the sessions that it had.
    pub fn kill(&self, region: usize) -> f64 {
        self.all[region].alive.store(false, Relaxed);
        let mut sessions = self.all[region].sessions.lock().expect("nobody panics with it");
        let lost = sessions.now();
        sessions.count = 0.0;
        lost
    }

    pub fn revive(&self, region: usize) {
        self.all[region].alive.store(true, Relaxed);
    }
}

impl Origin {
    fn serve(self: Arc<Origin>, listener: &TcpListener) {
        for stream in listener.incoming().map_while(Result::ok) {
            let origin = Arc::clone(&self);
            thread::spawn(move || {
                let _ = origin.talk(stream);
            });
        }
    }

    fn talk(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        let mut request = Vec::new();
        let mut chunk = [0; 1024];
        loop {
            let read = stream.read(&mut chunk)?;
            if read == 0 || !self.alive.load(Relaxed) {
                return Ok(());
            }
            request.extend_from_slice(&chunk[..read]);
            if request.windows(4).any(|end| end == b"\r\n\r\n") {
                request.clear();
                let sessions = self.sessions.lock().expect("nobody panics with it").now();
                let load = format!("JSON {{\"named_metrics\": {{\"sessions\": {sessions:.1}}}}}");
                write!(stream, "HTTP/1.1 200 OK\r\nendpoint-load-metrics: {load}\r\ncontent-length: 2\r\n\r\nok")?;
            }
        }
    }
}
