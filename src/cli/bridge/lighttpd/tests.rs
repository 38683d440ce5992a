//! Tests of whole translations.

use proptest::prelude::*;

use super::*;

/// The example of mod_wstunnel's documentation says this.
const NOVNC: &str = r#"
server.document-root = "/usr/share/novnc"
server.indexfiles = ("index.html")
server.modules += ( "mod_wstunnel" )
$HTTP["url"] =~ "^/websockify" {
    wstunnel.server = ( "" => ( ( "host" => "127.0.0.1", "port" => "5900" ) ) )
    wstunnel.frame-type = "binary"
    server.stream-request-body  = 2
    server.stream-response-body = 2
}
"#;

fn translated(text: &str) -> Translation {
    translate(text).unwrap()
}

#[test]
fn the_example_of_the_documentation_is_brought_over_without_a_word() {
    let Translation { toml, notes } = translated(NOVNC);
    assert_eq!(notes, [""; 0]);
    let (_, body) = toml.split_once('\n').unwrap();
    assert_eq!(
        body,
        "listen = \"80\"\nweb = \"/usr/share/novnc\"\nfile-only = true\n\n[[route]]\npath = \"/websockify\"\n\
         target = \"127.0.0.1:5900\"\nframe-type = \"binary\"\ntext = \"pass\"\n"
    );
}

#[test]
fn everything_of_a_route_has_its_word() {
    let Translation { toml, notes } = translated(
        r#"
server.port = 6080
server.bind = "::1"
var.base = "10.0.0."
wstunnel.balance = "round-robin" # for all
wstunnel.server = (
  "/rr" => (
    "one" => ( "host" => var.base + 1, "port" => 5900, "connect-timeout" => 3 ),
    "two" => ( "socket" => "/run/two.sock", "disable-time" => 5 ),
  ),
  ".tun" => (( "bin-path" => "/usr/bin/x -v", "socket" => "/run/x", "max-procs" => 2, "kill-signal" => 2,
               "bin-environment" => ( "A" => "b c" ), "bin-copy-environment" => ( "PATH" ) )),
)
wstunnel.map-extensions = ( ".alias" => ".tun" )
$HTTP["host"] == "vnc.example.org" {
  $HTTP["remoteip"] == "192.0.2.0/24" {
    wstunnel.server := ( "" => (( "host" => "vnc", "port" => "1" )) )
    wstunnel.origins = ( "https://example.org", "example.org" )
    wstunnel.ping-interval = 20
    wstunnel.debug = 7
  }
}
"#,
    );
    let parsed: toml::Table = toml.parse().unwrap();
    assert_eq!(parsed["listen"].as_str(), Some("[::1]:6080"));
    let routes = parsed["route"].as_array().unwrap();
    let expected: toml::Table = r#"
[[route]]
path = ""
host = ['^vnc\.example\.org(:[0-9]+)?$']
allow = ["192.0.2.0/24"]
target = "vnc:1"
frame-type = "text"
text = "pass"
balance = "round-robin"
origins = ["https://example.org", "*.example.org"]
ping-interval = "20s"
debug = 4
[[route]]
path = "/rr"
targets = ["10.0.0.1:5900", "unix_socket:/run/two.sock"]
frame-type = "text"
text = "pass"
balance = "round-robin"
connect-timeout = "3s"
disable-time = "5s"
[[route]]
path = ".tun"
extensions = [".alias"]
frame-type = "text"
text = "pass"
balance = "round-robin"
[[route.spawn]]
command = ["/usr/bin/x", "-v"]
socket = "/run/x"
min-procs = 2
max-procs = 2
kill-signal = 2
copy-environment = ["PATH"]
environment = { A = "b c" }
"#
    .parse()
    .unwrap();
    assert_eq!(routes, expected["route"].as_array().unwrap(), "{toml}");
    for part in ["line 17: the origin \"example.org\"", "line 17: another address gets 403"] {
        assert!(notes.iter().any(|note| note.starts_with(part)), "{part} in {notes:#?}");
    }
    assert_eq!(notes.len(), 2, "{notes:#?}");
}

#[test]
fn an_else_holds_where_what_stands_before_it_does_not() {
    let Translation { toml, .. } = translated(
        "$HTTP[\"url\"] =^ \"/a\" {\n wstunnel.server = ( \"\" => (( \"port\" => 1 )) )\n}\nelse $HTTP[\"url\"] =~ \"^/b$\" {\n}\n\
         else {\n wstunnel.server = ( \"\" => (( \"port\" => 2 )) )\n}\n",
    );
    let parsed: toml::Table = toml.parse().unwrap();
    let [other, a] = &parsed["route"].as_array().unwrap()[..] else { panic!("{toml}") };
    assert_eq!(other["url"].as_array().unwrap(), &["!^/a".into(), "!^/b$".into()]);
    assert_eq!((other["target"].as_str(), a["path"].as_str()), (Some("127.0.0.1:2"), Some("/a")));
}

#[test]
fn tls_is_that_of_the_sockets() {
    let Translation { toml, notes } = translated(
        "server.port = 80\nwstunnel.server = ( \"\" => (( \"port\" => 1 )) )\n$SERVER[\"socket\"] == \":443\" {\n\
         ssl.engine = \"enable\"\nssl.pemfile = \"/c.pem\"\nssl.privkey = \"/k.pem\"\nssl.verifyclient.activate = \"enable\"\n\
         ssl.ca-file = \"/ca.pem\"\nssl.cipher-list = \"HIGH\"\n}\n",
    );
    for line in [
        "listen = [\"80\", \"443\"]\n",
        "cert = \"/c.pem\"\n",
        "key = \"/k.pem\"\n",
        "verify-client = true\n",
        "cafile = \"/ca.pem\"\n",
    ] {
        assert!(toml.contains(line), "{line} in {toml}");
    }
    assert!(!toml.contains("ssl-only"), "{toml}");
    for part in ["ssl.cipher-list in $SERVER", "by their first byte", "at every listening socket"] {
        assert!(notes.iter().any(|note| note.contains(part)), "{part} in {notes:#?}");
    }
    let Translation { toml, notes } = translated(
        "server.port = 443\nssl.engine = \"enable\"\nssl.pemfile = \"/c.pem\"\nwstunnel.server = ( \"\" => (( \"port\" => 1 )) )",
    );
    assert!(toml.contains("ssl-only = true\n") && notes.is_empty(), "{toml} {notes:#?}");
}

#[test]
fn what_is_not_brought_over_is_told_with_line_and_reason() {
    let Translation { toml, notes } = translated(
        "include \"more.conf\"\nserver.username = \"www\"\n$HTTP[\"url\"] =^ \"/x\" { auth.require = ( \"\" => ( \"method\" => \"basic\" ) ) }\n\
         $HTTP[\"useragent\"] =~ \"x\" {\nwstunnel.server = ( \"/a\" => (( \"port\" => 1 )) )\n}\n\
         $HTTP[\"url\"] =~ \"^/(?!b)\" {\nwstunnel.server = ( \"/b\" => (( \"port\" => 1 )) )\n}\n\
         wstunnel.server = ( \"/c\" => ( \"host\" => \"x\" ), \"/d\" => (( \"port\" => 4, \"docroot\" => \"/\" )) )\n\
         wstunnel.balance = \"best\"\n$HTTP[\"url\"] =^ \"/d/x\" { wstunnel.frame-type = \"binary\" }\n",
    );
    assert_eq!(toml.matches("[[route]]").count(), 1, "{toml}");
    for part in [
        "line 1: include \"more.conf\": no other file is read",
        "line 2: server.username: start the bridge as that user",
        "line 3: auth.require in $HTTP[\"url\"] =^ \"/x\" (line 3): nobody is asked",
        "line 5: wstunnel.server is left out: $HTTP[\"useragent\"]",
        "line 8: wstunnel.server is left out: $HTTP[\"url\"]",
        "line 10: \"/c\" is left out",
        "line 10: docroot = \"/\"",
        "line 10: wstunnel.balance = \"best\"",
        "line 12: wstunnel.frame-type in $HTTP[\"url\"] =^ \"/d/x\" (line 12): it holds for some",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(part)), "{part} in {notes:#?}");
    }
}

#[test]
fn settings_are_values_and_what_is_included_need_not_be_known() {
    let Translation { toml, notes } = translated(
        r#"
server.port = 8080
server.feature-flags += ( "server.h2c" => "enable" )
index-file.names = ( "index.php", "index.html" )
include_shell "/usr/bin/listens " + server.port
include_shell "/usr/bin/types" + # all of them
  var.nobody-knows
include "/etc/more/*.conf"
$HTTP["url"] =^ "/a" {
  wstunnel.ping-interval = server.port
  wstunnel.server = ( "" => (( "port" => server.port + 1, "host" => "127.0.0.1" )) )
  include conf.name }
"#,
    );
    assert!(toml.contains("target = \"127.0.0.1:8081\"\n") && toml.contains("\"8080s\""), "{toml}");
    assert_eq!(
        notes,
        [
            "line 3: server.feature-flags: the bridge has nothing like it",
            "line 5: include_shell \"/usr/bin/listens \" + server.port: no program is run; put what it prints in the place of this line",
            "line 6: include_shell \"/usr/bin/types\" + var.nobody-knows: no program is run; put what it prints in the place of this line",
            "line 8: include \"/etc/more/*.conf\": no other file is read; put its text in the place of this line",
            "line 12: include conf.name: no other file is read; put its text in the place of this line",
        ]
    );
}

#[test]
fn a_program_gets_an_address_to_listen_at_and_no_name() {
    for (host, listen, told) in [
        ("", "127.0.0.1:7001", 0),
        ("\"host\" => \"localhost\",", "127.0.0.1:7001", 0),
        ("\"host\" => \"10.0.0.1\",", "10.0.0.1:7001", 0),
        ("\"host\" => \"::1\",", "[::1]:7001", 0),
        ("\"host\" => \"[::1]\",", "[::1]:7001", 0),
        ("\"host\" => \"back.test\",", "127.0.0.1:7001", 1),
    ] {
        let text =
            format!("wstunnel.server = ( \"\" => (( \"bin-path\" => \"/x\", {host} \"port\" => 7001 )) )");
        let Translation { toml, notes } = translated(&text);
        assert!(toml.contains(&format!("listen = \"{listen}\"\nmin-procs")), "{toml}");
        assert!(notes.len() == told && notes.iter().all(|note| note.contains("back.test")), "{notes:#?}");
    }
}

#[test]
fn a_tunnel_that_lighttpd_keeps_closed_is_left_out() {
    let tunnel = "wstunnel.server = ( \"/a\" => (( \"port\" => 1 )) )\n";
    for (text, why) in [
        (
            format!("server.port = 80\n$SERVER[\"socket\"] == \"127.0.0.1:81\" {{\n{tunnel}}}\n"),
            "wstunnel.server is left out: $SERVER",
        ),
        (
            format!("$HTTP[\"host\"] == \"x\" {{ $SERVER[\"socket\"] == \":81\" {{\n{tunnel}}} }}\n"),
            "wstunnel.server is left out: $SERVER",
        ),
        (
            format!("auth.require = ( \"\" => ( \"method\" => \"basic\" ) )\n{tunnel}"),
            "auth.require (line 1)",
        ),
        (format!("auth.require = ( \"/a/b\" => () )\n{tunnel}"), "auth.require (line 1)"),
        (
            format!("{tunnel}$HTTP[\"url\"] =^ \"/a/b\" {{\nauth.require = ( \"\" => () ) }}\n"),
            "auth.require (line 3)",
        ),
        (format!("url.access-deny = ( \"\" )\n{tunnel}"), "url.access-deny (line 1)"),
        (format!("url.access-allow = ( \".html\" )\n{tunnel}"), "url.access-allow (line 1)"),
    ] {
        let Translation { toml, notes } = translated(&text);
        assert!(!toml.contains("[[route]]"), "{text}{toml}");
        assert!(notes.iter().any(|note| note.contains(why)), "{why} in {notes:#?}");
    }
    for text in [
        format!("$SERVER[\"socket\"] == \":80\" {{\n{tunnel}}}\n"),
        format!("auth.require = ( \"/b\" => () )\nurl.access-deny = ( \"~\", \".inc\" )\n{tunnel}"),
    ] {
        assert!(translated(&text).toml.contains("[[route]]"), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_told_with_its_line() {
    for (text, part) in [
        ("server.port = 80\n", "no wstunnel.server"),
        ("a.b = (\n1,\n", "line 3: "),
        ("\na.b = \"x\n", "line 2: "),
        ("a.b = var.c\n", "line 1: there is no variable or setting var.c"),
        ("include \"x\"\na.b = c.d\n", "line 2: there is no variable or setting c.d; files that it includes"),
        (
            "include \"tunnels/*.conf\"\n",
            "no wstunnel.server, so that there is nothing to bridge; files that it includes",
        ),
        ("$HTTP[\"url\"] ~ \"x\" {}", "line 1: "),
        ("}\n", "line 1: } closes nothing"),
        ("else { }\n", "line 1: else stands behind no condition"),
        ("a.b = 1 2\n", "line 1: 2 follows a whole value"),
        ("a.b = ( \"x\" ) + 1\n", "line 1: a list and something else"),
    ] {
        let error = translate(text).unwrap_err();
        assert!(error.contains(part), "{part} in {error}");
    }
    assert!(translate(&"(".repeat(100_000)).is_err());
    let deep = format!("a.b = {}{}", "(".repeat(40), ")".repeat(40));
    assert!(translate(&deep).unwrap_err().contains("too many brackets"));
}

#[test]
fn a_value_that_doubles_with_each_line_ends_soon() {
    let text = format!("var.a = \"x\"\n{}", "var.a += var.a\n".repeat(64));
    assert!(translate(&text).unwrap_err().contains("too long"));
    let text = format!("var.a = ( \"x\" )\n{}", "var.a = var.a + var.a\n".repeat(64));
    assert!(translate(&text).unwrap_err().contains("too long"));
    let text = format!("var.a = ( \"x\" )\n{}", "var.a = ( var.a, var.a )\n".repeat(64));
    assert!(translate(&text).is_err());
}

/// Words of the language, in any order.
fn any_words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "$HTTP[\"url\"]",
        "$SERVER[\"socket\"]",
        "=~",
        "==",
        "!=",
        "=",
        "+=",
        "+",
        "(",
        ")",
        "{",
        "}",
        ",",
        "=>",
        "\n",
        "else",
        "global",
        "include",
        "wstunnel.server",
        "wstunnel.origins",
        "server.port",
        "ssl.engine",
        "var.a",
        "a",
        "\"\"",
        "\"/a\"",
        "\"host\"",
        "\"port\"",
        "\"bin-path\"",
        "80",
        "-1",
        "\"enable\"",
        "#",
        "\"",
        "\\",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_does_harm(text in any::<String>(), words in any_words()) {
        let _ = translate(&text);
        let _ = translate(&words);
        if let Ok(translation) = translate(&format!("{NOVNC}{words}")) {
            prop_assert!(translation.toml.parse::<toml::Table>().is_ok(), "{}", translation.toml);
        }
    }
}
