/* What nginx has to know of a Tokenward configuration to make the calls itself: where to, and whom to trust.
 *
 *     endpoint CONFIG FOLDER      prints KEY=VALUE lines; FOLDER gets roots.pem if the configuration names certificate authorities
 *     endpoint --port             prints a free port
 *
 * A configuration with mistakes ends it with all of them on standard error.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>

#include <tokenward.h>


static int
free_port(void)
{
    int                 fd;
    socklen_t           len;
    struct sockaddr_in  address;

    len = sizeof(address);
    memset(&address, 0, len);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *) &address, len) != 0
        || getsockname(fd, (struct sockaddr *) &address, &len) != 0)
    {
        perror("no free port");
        return 1;
    }

    printf("%u\n", ntohs(address.sin_port));
    return 0;
}


static char *
content(const char *name, size_t *len)
{
    long   size;
    char  *text;
    FILE  *file;

    file = fopen(name, "rb");

    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0
        || (text = malloc((size_t) size + 1)) == NULL)
    {
        fprintf(stderr, "error: %s cannot be read\n", name);
        exit(1);
    }

    *len = fread(text, 1, (size_t) size, file);
    text[*len] = '\0';
    fclose(file);
    return text;
}


int
main(int argc, char **argv)
{
    char                *name, *select, *slash, path[4096];
    FILE                *file;
    size_t               rest;
    const char          *at, *end;
    tokenward_str        url, pem, roots;
    tokenward_error     *error;
    tokenward_source     source;
    tokenward_document  *document;

    if (argc == 2 && strcmp(argv[1], "--port") == 0) {
        return free_port();
    }

    if (argc != 3) {
        fprintf(stderr, "usage: endpoint CONFIG FOLDER\n");
        return 2;
    }

    name = argv[1];
    memset(&source, 0, sizeof(source));
    source.struct_size = sizeof(source);

    select = strstr(name, "#route=");
    select = select ? select : strstr(name, "#service=");

    if (select) {
        *select++ = '\0';
        source.select.data = select;
        source.select.len = strlen(select);
    }

    source.text.data = content(name, &source.text.len);
    slash = strrchr(name, '/');

    if (slash) {
        source.folder.data = name;
        source.folder.len = (size_t) (slash - name) + 1;
    }

    error = NULL;

    if (tokenward_document_new(&source, &document, &error) != TOKENWARD_OK) {
        url.data = "it cannot be read";
        url.len = strlen(url.data);
        (void) tokenward_error_message(error, &url);
        fprintf(stderr, "error: %s:\n%.*s\n", name, (int) url.len, url.data);
        return 1;
    }

    if (tokenward_document_introspection_url(document, &url) != TOKENWARD_OK) {
        return 1;
    }

    /* The URL is in its normal form: scheme://host[:port]/path[?query]. */

    at = memchr(url.data, ':', url.len);

    if (at == NULL || (size_t) (at - url.data) + 3 > url.len) {
        return 1;
    }

    printf("SCHEME=%.*s\n", (int) (at - url.data), url.data);
    at += 3;
    rest = url.len - (size_t) (at - url.data);
    end = memchr(at, '/', rest);

    if (end == NULL) {
        return 1;
    }

    printf("AUTHORITY=%.*s\n", (int) (end - at), at);
    printf("TARGET=%.*s\n", (int) (url.data + url.len - end), end);
    printf("KEEPALIVE=%lu\n", (unsigned long) (tokenward_document_keepalive_us(document) / 1000));

    if (tokenward_document_tls_roots(document, &roots, &pem) == TOKENWARD_OK) {
        snprintf(path, sizeof(path), "%s/roots.pem", argv[2]);
        file = fopen(path, "wb");

        if (file == NULL || fwrite(pem.data, 1, pem.len, file) != pem.len || fclose(file) != 0) {
            perror(path);
            return 1;
        }

        printf("ROOTS=%s\n", path);
    }

    tokenward_document_free(document);
    return 0;
}
