//! lodger as it is measured, with TLS.

#[path = "main.rs"]
mod lodger_servers;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    lodger_servers::main()
}
