//! hyper, one thread: `peer-hyper PORT FILE`, the file's content from memory.
//!
//! Answers to requests that came together leave together (`pipeline_flush`), as in hyper's own benchmarks of pipelining.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use lodger_bench_peers::{arguments, serve};
use std::convert::Infallible;

fn main() {
    let (port, files) = arguments();
    let file = files.first().expect("FILE");
    let page = Bytes::from(std::fs::read(file).expect("a file"));
    serve(port, move |stream| {
        let page = page.clone();
        async move {
            let answer = service_fn(move |request| {
                let page = page.clone();
                async move { Ok::<_, Infallible>(respond(&request, page)) }
            });
            let mut http = http1::Builder::new();
            let _ = http.pipeline_flush(true).serve_connection(TokioIo::new(stream), answer).await;
        }
    })
}

fn respond(request: &Request<Incoming>, page: Bytes) -> Response<Full<Bytes>> {
    let found = request.uri().path() == "/index.html";
    let response = Response::builder().status(if found { StatusCode::OK } else { StatusCode::NOT_FOUND });
    let response = response.header(CONTENT_TYPE, "text/html");
    response.body(Full::new(if found { page } else { Bytes::new() })).expect("a response")
}
