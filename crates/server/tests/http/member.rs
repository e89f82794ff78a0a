//! The invented service: its pages work without a script, are small, and show nothing of strangers as
//! anything but text.

use crate::support::{Server, Setup};

fn member() -> Server {
    let mut setup = Setup { member_pages: true, ..Setup::default() };
    setup.rank.keys = vec!["a secret of the tests, thirty-two bytes or more".to_owned()];
    setup.start()
}

#[tokio::test]
async fn the_home_page_has_rows_of_signed_tiles() {
    let server = member();
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.text.matches("<section class=\"row\" id=\"row-").count(), 13);
    assert_eq!(page.text.matches("data-code=\"").count(), 16 + 12 * 12);
    assert!(page.text.contains("Nothing has been counted yet"), "it says so");
    assert!(page.text.len() < 100_000, "{} bytes", page.text.len());
    let rows = server.get("/member/rows").await.json();
    assert_eq!(rows["rows"].as_array().unwrap().len(), 13);
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere_and_have_no_script_of_their_own() {
    let server = member();
    for path in ["/", "/title/a-quiet-orchard"] {
        let page = server.get(path).await;
        assert!(page.header("content-security-policy").contains("script-src 'self'"), "{path}");
        for part in page.text.split("<script").skip(1) {
            let (tag, rest) = part.split_once('>').unwrap();
            assert!(tag.contains(" src=\"/") && rest.starts_with("</script>"), "{path}: {tag}");
        }
        assert!(!page.text.contains(" style=") && !page.text.contains(" onclick="), "{path}");
        for part in page.text.split(" src=\"").skip(1).chain(page.text.split(" href=\"").skip(1)) {
            let target = part.split('"').next().unwrap();
            let is_own = target.starts_with('/') || target.starts_with('#');
            assert!(is_own || target.starts_with("data:image/"), "{path}: {target}");
        }
    }
}

#[tokio::test]
async fn titles_and_posters_are_there_or_said_not_to_be() {
    let server = member();
    assert!(server.get("/title/a-quiet-orchard").await.text.contains("A Quiet Orchard"));
    let poster = server.get("/poster/a-quiet-orchard.svg").await;
    assert_eq!(poster.header("content-type"), "image/svg+xml");
    assert!(
        poster.text.starts_with("<svg") && poster.header("cache-control").contains("immutable")
    );
    let missing = server.get("/title/%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
    assert_eq!(missing.status, 404);
    assert!(missing.text.contains("&lt;script&gt;") && !missing.text.contains("<script>alert"));
    assert_eq!(server.get("/poster/nothing.svg").await.status, 404);
    assert_eq!(server.get("/member/why/nothing").await.status, 404);
    let why = server.get("/member/why/a-quiet-orchard").await.json();
    assert_eq!((&why["impressions"], &why["of"]), (&0.into(), &300.into()), "{why}");
}

#[tokio::test]
async fn without_the_demo_there_is_no_such_service() {
    let server = Server::new();
    assert_eq!(server.get("/title/a-quiet-orchard").await.status, 404);
    assert_eq!(server.get("/member/rows").await.status, 404);
}
