import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/**
 * Sends and fetches one file with java.net.http: OPERATION URL FILE, and for a form its directory.
 * For a form the file's part is named by the directory. Any response but a success is a failure.
 */
public class WithHttpClient {
    public static void main(String[] arguments) throws Exception {
        var operation = arguments[0];
        var file = Path.of(arguments[2]);
        // The client sends what is not ASCII as question marks.
        var uri = URI.create(URI.create(arguments[1]).toASCIIString());
        var asking = HttpRequest.newBuilder(uri);
        switch (operation) {
            case "put" -> asking.PUT(BodyPublishers.ofFile(file));
            case "form" -> asking
                    .header("Content-Type", "multipart/form-data; boundary=" + BOUNDARY)
                    .POST(BodyPublishers.ofByteArray(form(arguments[3], file)));
            case "chunked" -> asking.PUT(BodyPublishers.ofInputStream(() -> {
                try {
                    return Files.newInputStream(file);
                } catch (java.io.IOException error) {
                    throw new java.io.UncheckedIOException(error);
                }
            }));
            case "expect" -> asking.expectContinue(true).PUT(BodyPublishers.ofFile(file));
            case "download" -> asking.GET();
            case "resume" -> asking.header("Range", "bytes=" + Files.size(file) + "-");
            default -> throw new IllegalArgumentException(operation);
        }
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var response = client.send(asking.build(), BodyHandlers.ofByteArray());
        var expected = switch (operation) {
            case "download" -> 200;
            case "resume" -> 206;
            default -> 201;
        };
        if (response.statusCode() != expected) {
            throw new IllegalStateException(
                    response.statusCode() + " " + new String(response.body(), StandardCharsets.UTF_8));
        }
        if (operation.equals("download")) {
            Files.write(file, response.body());
        } else if (operation.equals("resume")) {
            Files.write(file, response.body(), StandardOpenOption.APPEND);
        }
    }

    private static final String BOUNDARY = "0123456789abcdef";

    /** The class library has no forms; programs write them as browsers do. */
    private static byte[] form(String directory, Path file) throws Exception {
        var written = new ByteArrayOutputStream();
        var head = "--" + BOUNDARY + "\r\nContent-Disposition: form-data; name=\"" + directory
                + "\"; filename=\"" + file.getFileName() + "\"\r\nContent-Type: audio/wav\r\n\r\n";
        written.write(head.getBytes(StandardCharsets.UTF_8));
        written.write(Files.readAllBytes(file));
        written.write(("\r\n--" + BOUNDARY + "--\r\n").getBytes(StandardCharsets.UTF_8));
        return written.toByteArray();
    }
}
