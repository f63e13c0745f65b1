//! Who is let in, and as whom.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sluice_apiserver::Pki;

use super::support::{Cluster, JSON, PODS, client_of, memory, request};

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A kubeconfig without a user, or with a token.
fn kubeconfig(cluster: &Cluster, token: Option<&str>) -> String {
    let ca = Pki::open_or_create(cluster.directory.path())
        .unwrap()
        .ca_pem()
        .to_owned();
    let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": cluster.url(), "certificate-authority-data": ca}}],
        "users": [{"name": "u", "user": token.map_or(json!({}), |token| json!({"token": token}))}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    })
    .to_string()
}

/// The code of a request by somebody, and the user that the server takes them for.
async fn whoami(cluster: &Cluster, token: Option<&str>) -> (StatusCode, Value) {
    let client = client_of(&kubeconfig(cluster, token)).await;
    request(&client, Method::POST, REVIEW, JSON, b"{}".to_vec()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_nothing_but_health_and_version() {
    let cluster = Cluster::start().await;
    let anonymous = client_of(&kubeconfig(&cluster, None)).await;
    let get = async |path| request(&anonymous, Method::GET, path, &[], Vec::new()).await;
    for path in [
        PODS,
        "/api",
        "/apis",
        "/metrics",
        "/openapi/v3",
        "/api/v1",
        "/nothing",
    ] {
        let (code, status) = get(path).await;
        assert_eq!(
            (code.as_u16(), &status["reason"]),
            (401, &json!("Unauthorized")),
            "{path}"
        );
        assert_eq!(status["kind"], "Status", "{path}");
    }
    for path in ["/healthz", "/livez", "/readyz"] {
        let (code, body) = get(path).await;
        assert_eq!((code.as_u16(), body), (200, json!("ok")), "{path}");
    }
    let (_, version) = get("/version").await;
    assert!(
        version["gitVersion"].as_str().unwrap().starts_with("v1."),
        "{version}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_names_user_and_groups() {
    let cluster = Cluster::start().await;
    let review = cluster.post(REVIEW, json!({})).await;
    let info = &review["status"]["userInfo"];
    assert_eq!(info["username"], "admin");
    assert_eq!(
        info["groups"],
        json!(["system:masters", "system:authenticated"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_file_lets_its_users_in() {
    let cluster = Cluster::start_with(|config| {
        let path = config.data_dir.join("tokens.csv");
        std::fs::write(&path, "secret,jane,7,\"dev,ops\"\n").unwrap();
        config.token_auth_file = Some(path);
        config.store = Some(memory());
    })
    .await;
    let (code, review) = whoami(&cluster, Some("secret")).await;
    assert_eq!(code, StatusCode::CREATED);
    let expected =
        json!({"username": "jane", "uid": "7", "groups": ["dev", "ops", "system:authenticated"]});
    assert_eq!(review["status"]["userInfo"], expected);
    assert_eq!(
        whoami(&cluster, Some("wrong")).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_accounts_token_ends_with_the_account() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app"}});
    cluster.post(accounts, account.clone()).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let made = cluster
        .post(&format!("{accounts}/app/token"), request)
        .await;
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    let (code, review) = whoami(&cluster, Some(&token)).await;
    assert_eq!(code, StatusCode::CREATED, "{review}");
    assert_eq!(
        review["status"]["userInfo"]["username"],
        "system:serviceaccount:default:app"
    );
    cluster.delete(&format!("{accounts}/app"), json!({})).await;
    assert_eq!(
        whoami(&cluster, Some(&token)).await.0,
        StatusCode::UNAUTHORIZED
    );
    cluster.post(accounts, account).await;
    assert_eq!(
        whoami(&cluster, Some(&token)).await.0,
        StatusCode::UNAUTHORIZED,
        "another uid"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused() {
    let cluster = Cluster::start().await;
    let foreign = tempfile::tempdir().unwrap();
    let pki = Pki::open_or_create(foreign.path()).unwrap();
    let text = pki
        .kubeconfig("admin", &["system:masters"], &cluster.url())
        .unwrap();
    let ours = Pki::open_or_create(cluster.directory.path()).unwrap();
    let encode =
        |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let text = text.replace(&encode(pki.ca_pem()), &encode(ours.ca_pem()));
    let client = client_of(&text).await;
    assert!(client.apiserver_version().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_asks_what_it_may() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.ok("auth can-i create pods").await, "yes\n");
    let out = cluster
        .ok("auth whoami -o jsonpath={.status.userInfo.username}")
        .await;
    assert_eq!(out, "admin");
    let token = cluster.fails("create token nobody").await;
    assert!(token.contains("\"nobody\" not found"), "{token}");
}
