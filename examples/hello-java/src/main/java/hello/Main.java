package hello;

import com.google.gson.Gson;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;

/** A small API: a greeting and a health check. Listens on $PORT and drains on SIGTERM. */
public final class Main {
    private static final Gson GSON = new Gson();
    private static final Duration DRAIN = Duration.ofSeconds(30);
    private static final AtomicInteger IN_PROGRESS = new AtomicInteger();

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
        Runtime.getRuntime().addShutdownHook(new Thread(() -> drain(server)));
        server.start();
        System.out.println("listening on port " + port);
    }

    private static void answer(HttpExchange exchange, int status, Map<String, String> value)
            throws IOException {
        IN_PROGRESS.incrementAndGet();
        try (exchange) {
            write(exchange, status, value);
        } finally {
            IN_PROGRESS.decrementAndGet();
        }
    }

    private static void write(HttpExchange exchange, int status, Map<String, String> value)
            throws IOException {
        byte[] body = GSON.toJson(value).getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
    }

    /** Waits for the answers in progress, then stops; older JDKs' own delay never ends early. */
    private static void drain(HttpServer server) {
        long deadline = System.nanoTime() + DRAIN.toNanos();
        while (IN_PROGRESS.get() > 0 && System.nanoTime() < deadline) {
            LockSupport.parkNanos(Duration.ofMillis(10).toNanos());
        }
        server.stop(0);
    }
}
