// What agents reach besides models: a forge, a package registry and pages.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { json } from "./notes.mjs";

/** `git http-backend` over the repositories of $FORGE. */
export function forge(request, response, path, body) {
  const [, query = ""] = request.url.split("?");
  const environment = {
    ...process.env,
    GIT_PROJECT_ROOT: process.env.FORGE,
    GIT_HTTP_EXPORT_ALL: "1",
    PATH_INFO: path,
    QUERY_STRING: query,
    REQUEST_METHOD: request.method,
    CONTENT_TYPE: request.headers["content-type"] ?? "",
    CONTENT_LENGTH: String(body.length),
    HTTP_CONTENT_ENCODING: request.headers["content-encoding"] ?? "",
    GIT_PROTOCOL: request.headers["git-protocol"] ?? "",
    GIT_CONFIG_COUNT: "1",
    GIT_CONFIG_KEY_0: "safe.directory",
    GIT_CONFIG_VALUE_0: "*",
  };
  const child = spawn("git", ["http-backend"], { env: environment });
  const parts = [];
  child.stdout.on("data", (part) => parts.push(part));
  child.on("close", () => {
    const whole = Buffer.concat(parts),
      end = whole.indexOf("\r\n\r\n");
    const head = whole
      .subarray(0, end)
      .toString()
      .split("\r\n")
      .map((line) => line.split(/:\s*/, 2));
    const status = head.find(([name]) => name === "Status")?.[1] ?? "200";
    response.writeHead(
      parseInt(status, 10),
      Object.fromEntries(head.filter(([name]) => name !== "Status")),
    );
    response.end(whole.subarray(end + 4));
  });
  // It ends without reading where there is nothing to read.
  child.stdin.on("error", () => {});
  child.stdin.end(body);
}

/** A registry that has every package in one version. */
export function registry(request, response, path) {
  const name = decodeURIComponent(path.slice(1));
  const shasum = createHash("sha1").update(name).digest("hex");
  const version = {
    name,
    version: "1.0.0",
    dist: { tarball: `https://${request.headers.host}/${name}/-/x-1.0.0.tgz`, shasum },
  };
  return json(response, { name, "dist-tags": { latest: "1.0.0" }, versions: { "1.0.0": version } });
}

export function page(response, host, path) {
  response.writeHead(200, { "content-type": "text/html" });
  response.end(`<html><body><p>A page of ${host}${path}</p></body></html>\n`);
}
