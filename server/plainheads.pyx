# SPDX-License-Identifier: MIT
"""Plain heads, decided without Python (contract: plainheads.pxd)."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, strdup, strlen, strrchr

from ustack.base.posix cimport stat_t
from ustack.base.prng cimport siphash13
from ustack.buf.lent cimport lent_t
from ustack.server.dates cimport DATE_BYTES, write_http_date
from ustack.server.decide cimport section_free, section_learn, shape_learn
from ustack.server.fetching cimport FILE_AWAITED, file_fetch
from ustack.server.filetable cimport (
    OPEN_IN_GENERAL, PATH_BYTES, file_fresh, file_lookup, file_number, file_take, responses_make_room)
from ustack.server.headscan cimport VERSION_BYTES
from ustack.server.headtable cimport decision_free, head_remember
from ustack.server.numerals cimport write_decimal, write_hex
from ustack.server.ready cimport counted_copy
from ustack.server.records cimport (
    DECISION_CLOSE, DECISION_FULL, DECISION_HEAD_ONLY, ENTITY_TAG_BYTES, EXTENSION_BYTES, FULL_FORMS, INLINE_BYTES,
    LOOK_UNITS, NO_FILE, PATH_BEGIN, PATH_GO_ON, PLAIN_FILE_UNITS, PLAIN_LOG_BYTES, PLAIN_UNITS, SHAPE_BYTES,
    decision_t, file_t, identity_t, plain_t, ready_t, section_t, server_t, shape_t, variant_t)

from ustack.server import accesslog, files, request as requests, response as responses, target as targets


cdef int plain_begin(server_t *server, uint32_t limit) except -1:
    cdef uint32_t slots = 1
    cdef bytes index = files.INDEX
    if len(index) + 1 > 16:
        raise ValueError("the name of a directory's file is too long")
    memcpy(server.path_bytes, PyBytes_AS_STRING(targets.normal_path_bytes()), 256)
    memcpy(server.index_name, PyBytes_AS_STRING(index), len(index))
    server.index_length = <uint32_t>len(index)
    server.max_section_bytes = requests.MAX_SECTION_BYTES
    server.max_log_text_bytes = accesslog.MAX_TEXT_BYTES
    server.shared_404 = responses.shared_index(404) * FULL_FORMS
    if limit == 0:
        return 0
    while slots * 2 <= limit:
        slots *= 2
    server.section_mask = slots - 1
    server.sections = <section_t **>calloc(slots, sizeof(void *))
    server.sections_seen = <uint64_t *>calloc(slots, sizeof(uint64_t))
    if server.sections == NULL or server.sections_seen == NULL:
        raise MemoryError
    return 0


cdef void plain_end(server_t *server) noexcept nogil:
    cdef uint32_t at
    if server.sections != NULL:
        for at in range(server.section_mask + 1):
            section_free(server.sections[at])
    free(server.sections)
    free(server.sections_seen)
    server.sections = NULL
    server.sections_seen = NULL
    for at in range(server.shape_count):
        free(server.shapes[at].text)
    server.shape_count = 0


cdef bint plain_read(server_t *server, const uint8_t *head, size_t length, plain_t *plain) noexcept nogil:
    """Take a complete head apart if its request line is plain: GET or HEAD, a path in normal form, HTTP/1.0 or 1.1.

    A complete head ends with an empty line, and no loop passes a control character.
    """
    cdef size_t at, begin
    cdef uint8_t allowed = PATH_BEGIN
    if length > 4 and memcmp(head, b"GET ", 4) == 0:
        at = 4
        plain.head_only = 0
    elif length > 5 and memcmp(head, b"HEAD ", 5) == 0:
        at = 5
        plain.head_only = 1
    else:
        return False
    if head[at] != c'/':
        return False
    at += 1
    begin = at
    while server.path_bytes[head[at]] & allowed or head[at] == c'/':
        if head[at] == c'/':
            if allowed == PATH_BEGIN:
                return False            # an empty segment
            allowed = PATH_BEGIN
        else:
            allowed = PATH_GO_ON
        at += 1
    plain.path = head + begin
    plain.path_length = at - begin
    plain.is_directory = allowed == PATH_BEGIN
    plain.quoted = 0
    if head[at] == c'?':
        while 0x21 <= head[at] <= 0x7e and head[at] != c'#':
            plain.quoted |= head[at] == c'"' or head[at] == c'\\'
            at += 1
    if length - at < VERSION_BYTES + 2 or memcmp(head + at, b" HTTP/1.", 8) != 0:
        return False
    if (head[at + 8] != c'0' and head[at + 8] != c'1') or head[at + 9] != c'\r' or head[at + 10] != c'\n':
        return False
    plain.minor = head[at + 8] - c'0'
    plain.line_length = at + VERSION_BYTES - 2
    plain.section = head + at + VERSION_BYTES
    plain.section_length = length - at - VERSION_BYTES
    return (plain.line_length <= server.max_request_line_bytes and plain.path_length < PATH_BYTES
            and plain.section_length <= server.max_section_bytes)


# ---------------------------------------------------------------- header sections

cdef inline uint64_t section_hash(const server_t *server, const plain_t *plain) noexcept nogil:
    return siphash13(server.hash_key, plain.section, plain.section_length) + plain.minor


cdef section_t *section_find(server_t *server, const plain_t *plain, uint64_t hashed) noexcept nogil:
    """What is known of the head's section. NULL: nothing yet."""
    cdef section_t *section = server.sections[hashed & server.section_mask]
    if (section != NULL and section.hash == hashed and section.minor == plain.minor
            and section.length == plain.section_length
            and memcmp(section.bytes, plain.section, plain.section_length) == 0):
        return section
    return NULL


cdef bint section_ask(server_t *server, const plain_t *plain) noexcept:
    """With the GIL: learn the head's section if it has been looked for before. False: it is still not known."""
    cdef uint64_t hashed = section_hash(server, plain)
    cdef size_t slot = hashed & server.section_mask
    cdef section_t *section
    if section_find(server, plain, hashed) != NULL:
        return True
    if server.sections_seen[slot] != hashed:
        server.sections_seen[slot] = hashed
        return False
    section = section_learn(server, plain.section, plain.section_length, plain.minor)
    if section == NULL:
        return False
    section.hash = hashed
    section_free(server.sections[slot])
    server.sections[slot] = section
    return True


# ---------------------------------------------------------------- heads of responses

cdef const char *extension_of(const file_t *file) noexcept nogil:
    """With its dot; empty without one."""
    cdef const char *name = file.variant[0].path
    cdef const char *base = strrchr(name, c'/')
    cdef const char *extension = strrchr(name if base == NULL else base, c'.')
    if extension == NULL:
        extension = b""
    return extension


cdef shape_t *shape_find(server_t *server, const file_t *file, uint8_t form) noexcept nogil:
    """The head of a 200 to a file of this kind, with holes. NULL: the general way has to make it, or it has to be
    learned."""
    cdef const char *extension = extension_of(file)
    cdef size_t length = strlen(extension)
    cdef uint32_t at
    cdef shape_t *shape
    if length > EXTENSION_BYTES:
        return NULL
    for at in range(server.shape_count):
        shape = &server.shapes[at]
        if (shape.form == form and shape.extension_length == length
                and memcmp(shape.extension, extension, length) == 0):
            return shape
    server.unlearned = 1
    server.unlearned_file = file_number(server, file)
    server.unlearned_form = form
    return NULL


cdef bint shape_ask(server_t *server) noexcept:
    """With the GIL: learn what shape_find has missed. False: it has no shape."""
    cdef const char *extension = extension_of(&server.files[server.unlearned_file])
    return shape_learn(server, extension, strlen(extension), server.unlearned_form) != NULL


cdef size_t write_entity_tag(uint8_t *out, const identity_t *identity) noexcept nogil:
    """At most ENTITY_TAG_BYTES; as files.entity_tag has it."""
    cdef size_t at = 1
    out[0] = c'"'
    at += write_hex(out + at, <uint64_t>identity.mtime_ns)
    out[at] = c'-'
    at += 1 + write_hex(out + at + 1, identity.size)
    out[at] = c'-'
    at += 1 + write_hex(out + at + 1, identity.inode)
    out[at] = c'"'
    return at + 1


cdef bint full_make(server_t *server, file_t *file, uint8_t form) noexcept nogil:
    """Make the ready-made response of a file that has no .gz. False: the general way has to."""
    cdef uint8_t text[SHAPE_BYTES + ENTITY_TAG_BYTES + DATE_BYTES + 20 + INLINE_BYTES]
    cdef variant_t *variant = &file.variant[0]
    cdef ready_t *ready = &variant.full[form]
    cdef shape_t *shape
    cdef const uint8_t *part
    cdef size_t at
    if variant.identity.mtime_ns < 0:
        return False
    shape = shape_find(server, file, form)
    if shape == NULL:
        return False
    part = shape.text
    memcpy(text, part, shape.parts[0])
    at = shape.parts[0]
    part += shape.parts[0]
    at += write_entity_tag(text + at, &variant.identity)
    memcpy(text + at, part, shape.parts[1])
    at += shape.parts[1]
    part += shape.parts[1]
    write_http_date(text + at, variant.identity.mtime_ns // 1_000_000_000)
    at += DATE_BYTES
    memcpy(text + at, part, shape.parts[2])
    at += shape.parts[2]
    part += shape.parts[2]
    at += write_decimal(text + at, variant.identity.size)
    memcpy(text + at, part, shape.parts[3])
    at += shape.parts[3]
    ready.head_length = <uint32_t>at
    if variant.body != NULL and not variant.mapped and variant.identity.size <= INLINE_BYTES:
        memcpy(text + at, variant.body.data, variant.identity.size)
        at += variant.identity.size
    responses_make_room(server, at, file_number(server, file), True)
    ready.lent = counted_copy(server, text, at)
    if ready.lent == NULL:              # no memory, or no room after all
        return False
    ready.date_at = shape.date_at
    ready.second = -1
    server.held_bytes += at
    server.full_bytes += at
    return True


# ---------------------------------------------------------------- deciding

cdef file_t *plain_file(server_t *server, const plain_t *plain, char *name, bint *absent) noexcept nogil:
    """The file of a path, opened if need be. NULL: *absent, with what was looked for in name[PATH_BYTES + 16], or the
    general way has to look."""
    cdef uint64_t hashed = siphash13(server.hash_key, plain.path, plain.path_length)
    cdef file_t *file = file_lookup(server, plain.path, plain.path_length, hashed)
    cdef size_t length = plain.path_length
    cdef stat_t found
    cdef lent_t *body = NULL
    cdef int verdict
    absent[0] = False
    if file != NULL and file_fresh(server, file):
        file.referenced = 1
        return file
    memcpy(name, plain.path, length)
    if plain.is_directory:
        memcpy(name + length, server.index_name, server.index_length)
        length += server.index_length
    name[length] = 0
    verdict = file_fetch(server, plain.path_length, hashed, name, &found, &body)
    server.units += PLAIN_FILE_UNITS if verdict == 0 else 2 * LOOK_UNITS
    if verdict == 0:
        return file_take(server, plain.path_length, hashed, name, &found, body)
    if verdict == FILE_AWAITED:
        return NULL
    if verdict < 0 and not plain.is_directory:
        absent[0] = True
    elif verdict == OPEN_IN_GENERAL:
        server.skip_file_open = 1
    return NULL


cdef bint plain_note(server_t *server, decision_t *decision, const uint8_t *head, const plain_t *plain,
                     const section_t *section) noexcept nogil:
    """Keep what the access log will say. False: the general way has to escape or cut something."""
    cdef uint8_t text[PLAIN_LOG_BYTES + 4]
    if server.log.fd < 0:
        return True
    if (plain.quoted or plain.line_length > server.max_log_text_bytes
            or plain.line_length + section.log_length > PLAIN_LOG_BYTES):
        return False
    text[0] = c'"'
    memcpy(text + 1, head, plain.line_length)
    decision.log_split = <uint32_t>plain.line_length + 3
    text[decision.log_split - 2] = c'"'
    text[decision.log_split - 1] = c' '
    memcpy(text + decision.log_split, section.log_text, section.log_length)
    decision.log_text = counted_copy(server, text, decision.log_split + section.log_length)
    if decision.log_text == NULL:
        server.log.lost_lines += 1
    return True


cdef bint plain_answer(server_t *server, decision_t *decision, file_t *file, const section_t *section) noexcept nogil:
    """Answer with the whole file. False: the general way has to."""
    cdef variant_t *variant
    decision.file = file_number(server, file)
    decision.generation = file.generation
    decision.variant = file.has_gzip and section.accepts_gzip
    decision.status = 200
    decision.flags |= DECISION_FULL
    variant = &file.variant[decision.variant]
    if variant.full[decision.form].lent == NULL and (
            file.has_gzip or not full_make(server, file, decision.form)):
        return False
    if variant.mapped or variant.identity.size > INLINE_BYTES:
        decision.body_length = variant.identity.size
    return True


cdef decision_t *decide_plain(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept nogil:
    cdef plain_t plain
    cdef char name[PATH_BYTES + 16]
    cdef bint absent = False, done = False
    cdef section_t *section
    cdef decision_t *decision
    cdef file_t *file
    server.skip_file_open = 0
    server.awaited = 0
    server.unlearned = 0
    if server.sections == NULL or server.finishing:
        return NULL
    if not plain_read(server, head, length, &plain):
        return NULL
    section = section_find(server, &plain, section_hash(server, &plain))
    if section == NULL:
        server.unlearned = 1
        server.unlearned_file = NO_FILE
        return NULL
    if not section.is_plain:
        return NULL
    server.units += PLAIN_UNITS
    file = plain_file(server, &plain, name, &absent)
    if file == NULL and not absent:
        return NULL
    decision = <decision_t *>calloc(1, sizeof(decision_t))
    if decision == NULL:
        return NULL
    decision.form = section.form
    decision.flags = (DECISION_HEAD_ONLY if plain.head_only else 0) | (DECISION_CLOSE if section.closes else 0)
    if file != NULL:
        done = plain_answer(server, decision, file, section)
    else:
        decision.file = NO_FILE
        decision.status = 404
        decision.shared = <uint8_t>(server.shared_404 + section.form + 1)
        decision.missing = strdup(name)
        decision.checked_ns = server.now_ns
        done = decision.missing != NULL and server.shared[decision.shared - 1].lent != NULL
    if not done or not plain_note(server, decision, head, &plain, section):
        decision_free(decision)
        return NULL
    server.stats.heads_plain += 1
    head_remember(server, decision, head, length, hashed)
    return decision


cdef decision_t *decide_learning(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept:
    cdef plain_t plain
    cdef decision_t *decision
    server.skip_file_open = 0
    if server.sections == NULL or server.finishing or not plain_read(server, head, length, &plain):
        return NULL
    if not section_ask(server, &plain):
        return NULL
    decision = decide_plain(server, head, length, hashed)
    if decision == NULL and server.unlearned and server.unlearned_file != NO_FILE and shape_ask(server):
        decision = decide_plain(server, head, length, hashed)
    return decision
