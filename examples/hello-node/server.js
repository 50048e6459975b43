// A small Express API: a greeting and a health check. Listens on $PORT and drains on SIGTERM.
import express from "express";

const app = express();
const word = process.env.GREETING ?? "Hello";

app.get("/", (request, response) => {
  const name = String(request.query.name ?? "world").slice(0, 100);
  response.json({ message: `${word}, ${name}!`, language: "node" });
});

app.get("/healthz", (_request, response) => {
  response.json({ status: "ok" });
});

const server = app.listen(Number(process.env.PORT ?? 3000), (error) => {
  if (error) throw error;
  console.log("listening", server.address());
});

// The gateway keeps idle connections; closing them first would race with its next request.
server.keepAliveTimeout = 620_000;

process.on("SIGTERM", () => server.close(() => process.exit(0)));
