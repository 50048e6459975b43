package hello;

import com.google.gson.Gson;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.Executors;

/** A small API: a greeting and a health check. Listens on $PORT and drains on SIGTERM. */
public final class Main {
    private static final Gson GSON = new Gson();

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8080"));
        String word = System.getenv().getOrDefault("GREETING", "Hello");
        HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.createContext("/", exchange -> {
            boolean isFront = exchange.getRequestURI().getPath().equals("/");
            answer(exchange, isFront ? 200 : 404, isFront
                    ? Map.of("message", word + ", world!", "language", "java")
                    : Map.of("error", "not found"));
        });
        server.createContext("/healthz", exchange -> answer(exchange, 200, Map.of("status", "ok")));
        // Lets requests in progress end, for at most 30 seconds.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(30)));
        server.start();
        System.out.println("listening on port " + port);
    }

    private static void answer(HttpExchange exchange, int status, Map<String, String> value)
            throws IOException {
        byte[] body = GSON.toJson(value).getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(status, body.length);
        try (var out = exchange.getResponseBody()) {
            out.write(body);
        }
    }
}
