//! Finds libuv by pkg-config. Nothing is generated: the functions that are used are declared in `src/sys.rs`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The oldest with `uv_handle_get_data` and its like.
    if let Err(error) = pkg_config::Config::new().atleast_version("1.19").probe("libuv") {
        eprintln!("{error}");
        eprintln!("lodger-libuv needs libuv 1.19 or newer with its development files, and pkg-config:");
        eprintln!("  Debian, Ubuntu   apt-get install libuv1-dev pkg-config");
        eprintln!("  Fedora           dnf install libuv-devel pkgconf-pkg-config");
        eprintln!("  Alpine           apk add libuv-dev pkgconf");
        eprintln!("  macOS            brew install libuv pkgconf");
        eprintln!("  FreeBSD          pkg install libuv pkgconf");
        std::process::exit(1);
    }
}
