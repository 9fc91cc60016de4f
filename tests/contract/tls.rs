//! doc/reference.md, "Environment": TLS to the hub, where something is wrong with a certificate or
//! with OpenSSL.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslAcceptorBuilder, SslMethod};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Builder};

use super::hostile_hub::error;
use super::production::{hub, production};
use crate::support::hub::folder;
use crate::support::{Program, certificates};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

static FILES: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = folder("tls-files");
    certificates(&dir, "DNS:localhost");
    dir
});

/// A certificate by the first authority, for this name, valid between these two times.
fn acceptor(name: &str, from: i64, until: i64) -> SslAcceptorBuilder {
    let read = |file: &str| fs::read(FILES.join(file)).unwrap();
    let authority = X509::from_pem(&read("ca.crt")).unwrap();
    let authority_key = PKey::private_key_from_pem(&read("ca.key")).unwrap();
    let key = PKey::private_key_from_pem(&read("server.key")).unwrap();
    let mut certificate = X509Builder::new().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_issuer_name(authority.subject_name()).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate.set_not_before(&Asn1Time::from_unix(from).unwrap()).unwrap();
    certificate.set_not_after(&Asn1Time::from_unix(until).unwrap()).unwrap();
    let names = SubjectAlternativeName::new()
        .dns(name)
        .build(&certificate.x509v3_context(Some(&authority), None))
        .unwrap();
    certificate.append_extension(names).unwrap();
    certificate.sign(&authority_key, MessageDigest::sha256()).unwrap();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&certificate.build()).unwrap();
    acceptor.set_private_key(&key).unwrap();
    acceptor
}

const LONG_AGO: i64 = 1_000_000_000;
const FAR_AHEAD: i64 = 4_000_000_000;

/// A server that agrees to TLS and says nothing more; its port.
fn server(acceptor: SslAcceptorBuilder) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = acceptor.build();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 8]);
            let _ = stream.write_all(b"S");
            if let Ok(mut stream) = acceptor.accept(stream) {
                let _ = stream.read(&mut [0; 4096]);
            }
        }
    });
    port
}

fn at(port: u16, mode: &str) -> Program {
    Program::new(&NEW)
        .env("DB_PORT", port.to_string())
        .env("POSTGRES_USER", "x")
        .env("POSTGRES_DB", "x")
        .env("PGSSLMODE", mode)
        .env("PGSSLROOTCERT", FILES.join("ca.crt"))
}

#[test]
fn a_certificate_that_is_out_of_date_or_of_another_host_is_named_as_such() {
    for (acceptor, next) in [
        (acceptor("localhost", LONG_AGO, LONG_AGO + 1), "renew the certificate"),
        (acceptor("localhost", FAR_AHEAD - 1, FAR_AHEAD), "correct the clock of this host"),
        (acceptor("elsewhere", LONG_AGO, FAR_AHEAD), "set DB_HOST to a name"),
    ] {
        let run = at(server(acceptor), "verify-full").run().fails();
        run.says("certificate verify failed").says(next).never_says("set PGSSLROOTCERT");
    }
    let other = at(server(acceptor("localhost", LONG_AGO, FAR_AHEAD)), "verify-full");
    let run = other.env("PGSSLROOTCERT", FILES.join("other.crt")).run().fails();
    run.says("certificate verify failed").says("next: set PGSSLROOTCERT");
}

#[test]
fn a_server_that_demands_a_certificate_of_its_clients_says_so_in_every_mode() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = acceptor("localhost", LONG_AGO, FAR_AHEAD).build();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            // As PostgreSQL answers with `clientcert=verify-ca` in its pg_hba.conf.
            if stream.read(&mut bytes).is_ok_and(|read| read == 8) {
                let _ = stream.write_all(b"S");
                let Ok(mut stream) = acceptor.accept(stream) else { continue };
                let _ = stream.read(&mut bytes);
                let text = "connection requires a valid client certificate";
                let _ = stream.write_all(&error("28000", text));
            } else {
                let _ = stream.write_all(&error("28000", "no pg_hba.conf entry, no encryption"));
            }
        }
    });
    for mode in ["prefer", "require", "verify-full"] {
        at(port, mode).run().fails().says("connection requires a valid client certificate");
    }
}

#[test]
fn verify_ca_demands_a_file_of_authorities_before_anything_is_connected() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let program = || at(listener.local_addr().unwrap().port(), "verify-ca");
    program().without("PGSSLROOTCERT").run().fails().says("PGSSLROOTCERT");
    program().env("PGSSLROOTCERT", "").run().fails().says("PGSSLROOTCERT");
    program().env("PGSSLROOTCERT", "system").run().fails().says("PGSSLROOTCERT");
    assert!(listener.accept().is_err(), "it was connected");
}

/// An OpenSSL configuration with this text.
fn configured(program: Program, name: &str, text: &str) -> Program {
    let file = FILES.join(name);
    fs::write(&file, text).unwrap();
    program.env("OPENSSL_CONF", file)
}

#[test]
fn an_openssl_configuration_that_cannot_be_used_is_reported() {
    let none = "openssl_conf = o\n[o]\nproviders = p\n[p]\nnone = n\n[n]\nmodule = /none.so\nactivate = 1\n";
    let fips = "openssl_conf = o\n[o]\nproviders = p\nalg_section = a\n[p]\nfips = f\n[f]\nactivate = 1\n[a]\ndefault_properties = fips=yes\n";
    for (name, text) in [
        ("none", none.to_owned()),
        ("fips", fips.to_owned()),
        ("loud-none", format!("config_diagnostics = 1\n{none}")),
        ("loud-fips", format!("config_diagnostics = 1\n{fips}")),
        ("torn", "openssl_conf = o\n[o\n".to_owned()),
        ("loud-section", "config_diagnostics = 1\nopenssl_conf = missing\n".to_owned()),
    ] {
        let hub = hub();
        for mode in ["prefer", "require", "verify-full"] {
            let program = production(&hub, &NEW);
            let program = if mode == "prefer" {
                hub.program(&NEW).env("DB_HOST", "localhost")
            } else {
                program.env("PGSSLMODE", mode)
            };
            let run = configured(program, name, text.as_str()).run();
            // Some of these OpenSSL passes over; the others are said. Never a crash, never a panic.
            match run.status.code() {
                Some(0) => drop(run.kit()),
                _ => drop(run.fails().never_says("internal error").says("OPENSSL_CONF")),
            }
        }
    }
}
