use super::*;

/// In each of these commands, `hush` is a secret or part of one.
const LEAKS: &[&[&str]] = &[
    // Names of flags.
    &["login", "--password", "hush"],
    &["login", "--password", "correct horse hush"],
    &["login", "--password=hush"],
    &["login", "--password=correct horse hush"],
    &["login", "--access-token", "hush"],
    &["login", "--api-key", "hush"],
    &["login", "--apikey=hush"],
    &["login", "--secret", "hush"],
    &["login", "--client-secret=hush"],
    &["login", "--token", "hush"],
    &["kubectl", "--token=hush", "get", "pods"],
    &["gpg", "--batch", "--passphrase", "hush", "-d", "x"],
    &["keytool", "-storepass", "hush", "-keypass", "hush"],
    &["az", "storage", "--account-key", "hush"],
    &["az", "storage", "--sas-token", "hush"],
    &[
        "az",
        "login",
        "--service-principal",
        "-u",
        "app",
        "-p",
        "hush",
    ],
    &["docker", "login", "-u", "ana", "-p", "hush", "r.example"],
    &["twine", "upload", "-u", "__token__", "-p", "hush"],
    &["curl", "--oauth2-bearer", "hush", "https://a.example/"],
    &[
        "curl",
        "--pass",
        "hush",
        "--key",
        "k.pem",
        "https://a.example/",
    ],
    &["curl", "--proxy-pass", "hush"],
    &["java", "-Dspring.datasource.password=hush", "-jar", "a.jar"],
    &["java", "-Djavax.net.ssl.keyStorePassword=hush"],
    &["helm", "install", "--set", "auth.password=hush,x=1"],
    &["terraform", "apply", "-var", "db_password=hush"],
    &[
        "ansible-playbook",
        "--extra-vars",
        "{\"ansible_password\": \"hush\"}",
    ],
    &["ansible-playbook", "-e", "vault_pass=hush"],
    &["docker", "run", "-e", "DB_PASSWORD=hush", "x"],
    &["docker", "run", "--env=DB_PASSWORD=hush", "x"],
    &["docker", "build", "--build-arg", "NPM_TOKEN=hush", "."],
    // Short flags.
    &["mysql", "-uroot", "-phush", "db"],
    &["mysqldump", "-u", "root", "-phush1", "db"],
    &["mariadb", "--user=root", "--password=hush"],
    &["sshpass", "-p", "hush", "ssh", "a.example"],
    &["sshpass", "-phush", "ssh", "a.example"],
    &["mongosh", "-u", "ana", "-p", "hush"],
    &["cqlsh", "-u", "ana", "-p", "hush"],
    &["sqlcmd", "-S", "db", "-U", "sa", "-P", "hush"],
    &["7z", "x", "-phush", "a.7z"],
    &["unzip", "-P", "hush", "a.zip"],
    &["rar", "a", "-hphush", "a.rar"],
    &["redis-cli", "-a", "hush", "ping"],
    &["ldapsearch", "-D", "cn=ana", "-w", "hush"],
    &["openssl", "enc", "-aes-256-cbc", "-k", "hush"],
    &["openssl", "rsa", "-passin", "pass:hush"],
    &["openssl", "pkcs12", "-passout", "pass:hush"],
    &["useradd", "-p", "hush", "ana"],
    &["xfreerdp", "/u:ana", "/p:hush", "/v:a.example"],
    // A password that contains a secret name, in the same word as its flag.
    &["mysql", "-u", "root", concat!("-phush", "Passw0rd1"), "db"],
    &[
        "sshpass",
        concat!("-phush", "Passw0rd1"),
        "ssh",
        "a.example",
    ],
    &["7z", "x", concat!("-phush", "Passw0rd1"), "a.7z"],
    &["ldapsearch", "-D", "cn=ana", concat!("-whush", "Passw0rd1")],
    &["mysql", concat!("-phush", "Secret")],
    &["app", "-privatekey", "hush"],
    &["app", "-password", "hush"],
    // Subcommands.
    &["cargo", "login", "hush"],
    &["vault", "login", "hush"],
    &["vault", "kv", "put", "s", "value=hush"],
    &["vault", "write", "auth/x", "role=hush"],
    &["consul", "kv", "put", "a", "hush"],
    &["gh", "secret", "set", "T", "-b", "hush"],
    &["glab", "auth", "login", "-t", "hush"],
    &["flyctl", "deploy", "-t", "hush"],
    &["doctl", "auth", "init", "-t", "hush"],
    &["keytool", "-genkey", "-keypass", "hush"],
    &["ssh-keygen", "-t", "ed25519", "-N", "hush", "-f", "k"],
    &[
        "kubectl",
        "create",
        "secret",
        "generic",
        "s",
        "--from-literal=k=hush",
    ],
    &[
        "kubectl",
        "create",
        "secret",
        "generic",
        "s",
        "--from-literal",
        "k=hush",
    ],
    &["terraform", "apply", "-var", "db_master=hush"],
    &["terraform", "apply", "-var=db_master=hush"],
    &["bash", "-c", "export TOK=hush; run"],
    &["bash", "-c", "T='hush' run"],
    &["bash", "-c", "T='a hush' run"],
    &["bash", "-c", "cd x && tok=hush; run"],
    &["env", "API=hush", "run"],
    &["docker", "run", "--env", "API=hush", "x"],
    &["docker", "run", "--env=API=hush", "x"],
    &["docker", "run", "-eAPI=hush", "x"],
    &["heroku", "config:set", "FOO=hush"],
    &["kubectl", "set", "env", "deploy/x", "A=hush"],
    &["ssh", "a.example", "env", "A=hush", "run"],
    &["netlify", "env:set", "FOO", "hush"],
    &["flyctl", "secrets", "set", "FOO=hush", "BAR=hush"],
    &["dotnet", "nuget", "push", "a.nupkg", "-k", "hush"],
    &["gem", "push", "a.gem", "-k", "hush"],
    &["poetry", "config", "http-basic.r", "u", "hush"],
    &["composer", "config", "http-basic.r", "u", "hush"],
    &["composer", "config", "github-oauth.h", "hush"],
    &["pulumi", "config", "set", "--secret", "n", "hush"],
    &["yarn", "config", "set", "npmAuthToken", "hush"],
    &["yarn", "config", "set", "x", "hush"],
    &["bw", "unlock", "hush"],
    &["bw", "login", "ana@a.example", "hush"],
    &["ngrok", "authtoken", "hush"],
    &["ngrok", "config", "add-authtoken", "hush"],
    &["rclone", "obscure", "hush"],
    &["cloudflared", "service", "install", "hush"],
    &["snyk", "auth", "hush"],
    &["redis-cli", "AUTH", "hush"],
    &["openssl", "passwd", "hush"],
    &["jq", "-n", "--arg", "tok", "hush", "{}"],
    // Code, and commands that another program runs.
    &["expect", "-c", "send hush"],
    &["python3", "-c", "Client('hush')"],
    &["python3", "-c", "import x; x.Client('hush', 1)"],
    &["node", "-e", "login('hush')"],
    &["perl", "-pe", "s/x/hush/"],
    &["psql", "-c", "select 'hush'"],
    &["app", "-e", "send hush"],
    &["ssh", "a.example", "mysql -phush db"],
    &["ssh", "a.example", "mysql", "-phush", "db"],
    &["xargs", "mysql", "-phush"],
    &["bash", "-c", "-l", "source x && eval 'mysql -phush db'"],
    &["timeout", "10", "mysql", "-phush"],
    &["sed", "-i", "s/x/hush/", "f"],
    &["mongosh", "--eval=hush"],
    &["aws", "x", "--parameter-overrides", "A=hush", "B=hush"],
    &["sed", "-i", "s/x/a hush/", "f"],
    &["http", "POST", "a.example", "x=hush", "X-Custom:hush"],
    // user:secret.
    &["curl", "-u", "ana:hush", "https://a.example/"],
    &["curl", "-u", "hush:", "https://a.example/"],
    &["curl", "-u", "hush", "https://a.example/"],
    &["curl", "-uana:hush"],
    &["curl", "--user", "ana:hush"],
    &["curl", "--user=ana:hush"],
    &["curl", "-U", "ana:hush", "-x", "p.example:1"],
    &["curl", "--proxy-user", "ana:hush"],
    &["http", "-a", "ana:hush", "a.example"],
    &["smbclient", "-U", "ana%hush", "//a/b"],
    &["lftp", "-u", "ana,hush", "a.example"],
    &["sqlplus", "ana/hush@db"],
    &["htpasswd", "-b", "file", "ana", "hush"],
    // Variables.
    &["env", "AWS_SECRET_ACCESS_KEY=hush", "aws"],
    &["env", "NPM_TOKEN=hush", "npm"],
    &["env", "STRIPE_KEY=hush", "x"],
    &["env", "PGPASSWORD=hush", "psql"],
    &["env", "MYSQL_PWD=hush", "mysql"],
    &["env", "SENTRY_DSN=hush", "x"],
    &["env", "GITHUB_PAT=hush", "x"],
    &[
        "bash",
        "-c",
        "PASSWORD=hush run; curl https://ana:hush@a.example",
    ],
    &["bash", "-c", "export TOKEN='a hush b'; run"],
    &["bash", "-c", "TOKEN=$(echo hush) run"],
    &["bash", "-lc", "TOKEN=a\\ hush run"],
    &["sh", "-c", "read -r x <<< hush"],
    &["sh", "-c", "cat > f <<EOF\nhush\nmore hush\nEOF\necho done"],
    &[
        "sh",
        "-c",
        "echo hush | docker login -u ana --password-stdin r.example",
    ],
    &["sh", "-c", "printf '%s' hush | gh auth login --with-token"],
    &["sh", "-c", "echo hush | sudo -S true"],
    &["sh", "-c", "echo ana:hush | chpasswd"],
    // Header fields.
    &["curl", "-H", "Authorization: Bearer hush"],
    &["curl", "-H", "Authorization: Basic aHVzaDpodXNo hush"],
    &["curl", "-HAuthorization: Bearer hush"],
    &["curl", "-H", "X-Api-Key: hush", "https://a.example/"],
    &["curl", "-H", "X-Custom: hush", "https://a.example/"],
    &["curl", "--header", "authorization:hush"],
    &["curl", "--header=PRIVATE-TOKEN: hush"],
    &["curl", "-H", "Cookie: a=hush; b=hush"],
    &["curl", "-b", "sid=hush", "https://a.example/"],
    &["curl", "--cookie", "sid=hush"],
    &["wget", "--header=X-Auth: hush", "https://a.example/"],
    &[
        "git",
        "-c",
        "http.extraHeader=Authorization: Basic hush",
        "fetch",
    ],
    &[
        "bash",
        "-c",
        "curl -H 'Authorization: Bearer hush' -u ana:hush https://a.example/",
    ],
    &["bash", "-c", "curl -H \"X-Vault: hush\" https://a.example/"],
    // Bodies.
    &["curl", "-d", "user=ana&pin=hush", "https://a.example/"],
    &["curl", "-d", "{\"a\": \"hush\"}", "https://a.example/"],
    &["curl", "--data-raw", "hush", "https://a.example/"],
    &["curl", "--json", "{\"password\":\"hush\"}"],
    &["curl", "-F", "file=hush"],
    &["wget", "--post-data=password=hush", "https://a.example/"],
    // URLs and connection strings.
    &["curl", "https://ana:hush@a.example/x"],
    &["git", "clone", "https://hush@a.example/x"],
    &[
        "git",
        "remote",
        "add",
        "o",
        "https://oauth2:hush@a.example/x.git",
    ],
    &["curl", "https://a.example/x?access_token=hush"],
    &["curl", "https://a.example/x?q=hush"],
    &["curl", "https://a.example/x#hush"],
    &[
        "curl",
        "-x",
        "http://proxy:hush@a.example:1",
        "https://b:hush@c.example/",
    ],
    &["psql", "postgres://ana:hush@db.example/x"],
    &["psql", "host=db user=ana password=hush"],
    &["psql", "host=db password='a hush'"],
    &["mongosh", "mongodb+srv://ana:hush@db.example/x"],
    &["redis-cli", "-u", "redis://:hush@db.example"],
    &["app", "jdbc:mysql://db/x?user=ana&password=hush"],
    &["app", "Server=db;User Id=sa;Password=hush;"],
    &["app", "Server=db;Pwd=hush;Database=x"],
    &[
        "app",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hush;",
    ],
    &["app", "Endpoint=sb://a.example/;SharedAccessKey=hush"],
    &["curl", "https://hooks.example.com/services/T0/B0/hush"],
    &["curl", "https://chat.example.com/api/webhooks/1/hush"],
    &["curl", "https://api.example.org/bot12:hush/send"],
    // Settings.
    &["aws", "configure", "set", "aws_secret_access_key", "hush"],
    &["npm", "config", "set", "//r.example/:_authToken", "hush"],
    &["npm", "config", "set", "//r.example/:_authToken=hush"],
    &["git", "config", "hub.oauthtoken", "hush"],
    &["nmcli", "dev", "wifi", "connect", "x", "password", "hush"],
    &[
        "mysql",
        "-e",
        "create user a identified by 'hush' password 'hush'",
    ],
    // Tokens of well-known issuers, assembled here.
    &["echo", concat!("sk", "-hush-0123456789")],
    &["echo", concat!("sk", "-ant-api03-hush0123456789")],
    &["echo", concat!("gh", "p_hush0123456789")],
    &["echo", concat!("github", "_pat_hush0123456789")],
    &["echo", concat!("gl", "pat-hush0123456789")],
    &["echo", concat!("xo", "xb-1234-hush0123")],
    &["echo", concat!("AK", "IAhush0123456789")],
    &["echo", concat!("np", "m_hush0123456789")],
    &["echo", concat!("py", "pi-AgEIhush0123456789")],
    &["echo", concat!("AI", "zahush0123456789")],
    &["echo", concat!("ey", "Jhbhush.eyJhush0123.hush")],
    &["echo", concat!("hv", "s.hush0123456789")],
    &["echo", concat!("x=gh", "p_hush0123456789")],
    &["echo", concat!("(gh", "p_hush0123456789)")],
    &["echo", concat!("-----BE", "GIN RSA KEY-----\nhush\nhush")],
    // Random text.
    &["echo", "hush4f0c9a1b2c3d4e5f"],
    &["echo", "hushAbC1/xYz+Q2wErTyUiOpAsDfGhJkLz="],
    &["echo", "AbChushDeFgHiJk1LmNoPq"],
];

/// Commands without secrets.
const PLAIN: &[&[&str]] = &[
    &[
        "curl",
        "-sS",
        "https://a.example/token/x",
        "-H",
        "Accept: text/plain",
    ],
    &["git", "clone", "https://a.example/x@y"],
    &["git", "log", "-p", "src/token.rs"],
    &["npm", "install", "left-pad@1.3.0"],
    &["npm", "test"],
    &["python3", "-m", "http.server", "8000"],
    &[
        "cargo",
        "test",
        "-p",
        "tidegate",
        "--target",
        "x86_64-unknown-linux-gnu",
    ],
    &["mkdir", "-p", "target/debug"],
    &["ssh", "-p", "2222", "a.example"],
    &["bash", "-c", "cd /home/ana/src && make -j4 test"],
    &[
        "node",
        "/usr/lib/node_modules/npm/bin/npm-cli.js",
        "run",
        "build",
    ],
    &["docker", "run", "-d", "-u", "1000:1000", "alpine"],
    &["gcc", "-O2", "-c", "a.c", "-o", "a.o"],
    &["cargo", "build", "--release"],
    &["git", "clone", "https://a.example/x.git"],
    &["curl", "https://a.example/x"],
    &["npm", "run", "build"],
    &["npm", "install", "--save-dev", "typescript"],
    &["git", "push", "origin", "main"],
    &["git", "checkout", "-b", "topic"],
    &["docker", "login", "r.example"],
    &["docker", "compose", "up", "-d"],
    &["gh", "pr", "list"],
    &["gh", "auth", "status"],
    &["kubectl", "get", "pods", "-n", "web"],
    &["terraform", "plan"],
    &["pip", "install", "-r", "requirements.txt"],
    &["ls", "config", "src/login"],
    &["grep", "-rn", "login", "src"],
    &["ssh", "a.example", "uptime"],
    &["bash", "-c", "-l", "source x && eval 'npm test'"],
    &["timeout", "10", "npm", "test"],
    &["npm", "config", "get", "registry"],
    &["http", "a.example:8080/x"],
    &["npx", "tsc", "-p", "."],
    &["bash", "-c", "cargo build && cargo test -p tidegate"],
    &["bash", "-lc", "export PATH=/opt/bin:/bin; npm test"],
];

fn mask(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    masked(&words)
}

#[test]
fn no_secret_of_a_command_line_is_written() {
    assert!(LEAKS.len() >= 80);
    let leaks = LEAKS.iter().map(|words| (words, mask(words)));
    let leaks: Vec<_> = leaks
        .filter(|(_, text)| text.contains("hush") || !text.contains(MASK))
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn no_secret_of_a_script_is_written() {
    // The same commands, quoted for a shell.
    let quoted = |words: &&[&str]| {
        let words = words.iter().map(|word| {
            if word.contains([' ', '\n', '&', ';', '{']) {
                format!("'{word}'")
            } else {
                (*word).to_owned()
            }
        });
        words.collect::<Vec<_>>().join(" ")
    };
    let plain = LEAKS
        .iter()
        .filter(|words| !words.contains(&"-c") && !words.contains(&"-lc"));
    let leaks = plain.map(|words| mask(&["bash", "-c", &quoted(words)]));
    let leaks: Vec<_> = leaks.filter(|text| text.contains("hush")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn a_command_without_secrets_stays() {
    for words in PLAIN {
        assert_eq!(mask(words), words.join(" "));
    }
}

#[test]
fn what_stands_beside_a_secret_stays() {
    for (words, text) in [
        (
            &[
                "bash",
                "-c",
                "curl -H 'Authorization: Bearer hush' https://a.example/",
            ][..],
            "bash -c curl -H Authorization:*** https://a.example/",
        ),
        (
            &["curl", "-u", "ana:hush", "https://a.example/x?y=hush"],
            "curl -u *** https://a.example/x?***",
        ),
        (
            &["env", "TOKEN=hush", "npm", "test"],
            "env TOKEN=*** npm test",
        ),
        (
            &["mysql", "-u", "root", concat!("-phush", "Passw0rd1"), "db"],
            "mysql -u root -p*** db",
        ),
        (
            &["vault", "kv", "put", "s", "value=hush"],
            "vault kv put s value=***",
        ),
        (
            &["gh", "secret", "set", "T", "-b", "hush"],
            "gh secret set T -b ***",
        ),
        (
            &["bash", "-c", "X=$(curl -u a:hush https://a.example/x) run"],
            "bash -c X=$(curl -u *** https://a.example/x) run",
        ),
        (
            &["python3", "-c", "get('https://a.example/x', 'hush')"],
            "python3 -c https://a.example/***",
        ),
        (
            &["mysql", "-uroot", "-phush", "db"],
            "mysql -uroot -p*** db",
        ),
    ] {
        assert_eq!(mask(words), text);
    }
}
