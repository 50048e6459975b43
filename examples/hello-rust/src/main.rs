//! A small API: a greeting and a health check. Listens on $PORT and drains on SIGTERM.

use std::env;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{json, Value};
use signal_hook::consts::SIGTERM;
use tiny_http::{Header, Request, Response, Server};

const WORKERS: usize = 4;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let port = env::var("PORT").unwrap_or_else(|_| "8080".into());
    let server = Arc::new(Server::http(format!("0.0.0.0:{port}"))?);
    let stopping = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&stopping))?;
    println!("listening on port {port}");

    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (server, stopping) = (Arc::clone(&server), Arc::clone(&stopping));
            thread::spawn(move || {
                while !stopping.load(Ordering::Relaxed) {
                    match server.recv_timeout(Duration::from_millis(200)) {
                        Ok(Some(request)) => answer(request),
                        Ok(None) => {}
                        Err(error) => eprintln!("receive: {error}"),
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker panicked");
    }
    Ok(())
}

fn answer(request: Request) {
    let path = request.url().split('?').next().unwrap_or("/");
    let (status, body) = match path {
        "/" => (200, greeting()),
        "/healthz" => (200, json!({"status": "ok"})),
        _ => (404, json!({"error": "not found"})),
    };
    let header = Header::from_bytes("Content-Type", "application/json").expect("a valid header");
    let response = Response::from_string(body.to_string())
        .with_status_code(status)
        .with_header(header);
    if let Err(error) = request.respond(response) {
        eprintln!("respond: {error}");
    }
}

fn greeting() -> Value {
    let word = env::var("GREETING").unwrap_or_else(|_| "Hello".into());
    json!({"message": format!("{word}, world!"), "language": "rust"})
}
