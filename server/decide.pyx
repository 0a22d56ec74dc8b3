# SPDX-License-Identifier: MIT
"""Decisions that take Python (contract: decide.pxd)."""

import logging

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strdup

from ustack.application cimport Application
from ustack.base.bytestring cimport bytes_from, data_of, size_of
from ustack.base.prng cimport siphash13
from ustack.buf.lent cimport lent_from_copy, lent_t
from ustack.server.filetable cimport responses_make_room
from ustack.server.headtable cimport decision_free, head_drop, head_remember
from ustack.server.loading cimport ABSENT, AWAITED, Loader
from ustack.server.ready cimport counted_copy
from ustack.server.records cimport (
    DECISION_CHUNKED, DECISION_CLOSE, DECISION_CONTINUE, DECISION_FULL, DECISION_HEAD_ONLY, DECISION_LINGER,
    DECISION_REMEMBERED, FORM_CLOSE, FULL_FORMS, HEAD_BYTES_UNIT_SHIFT, INLINE_BYTES, NO_FILE, SHAPES_MAX, SHAPE_BYTES,
    UNSEEN_UNITS, decision_t, file_t, ready_t, section_t, server_t, shape_t, variant_t)
from ustack.server.refusals cimport refusal_decide

from ustack.errors import is_interruption
from ustack.server import accesslog, request as requests, response as responses, selection, target as targets

_log = logging.getLogger("ustack.server")
_NOT_FOUND = responses.Refusal(404)


class Waits(Exception):
    """The file is being read: the head is decided when it has come (fetching)."""


cdef enum:
    INTERRUPTIONS = 8                   # times that one decision is begun again because a signal handler raised in it


cdef void unexpected(server_t *server, error, what) noexcept:
    """Count and log; the client gets a 500."""
    server.stats.internal_errors += 1
    _log.error(what, exc_info=error)


cdef bint interrupted(server_t *server, object error) noexcept:
    if not is_interruption(error):
        return False
    (<Application>server.owner).park(error)
    return True


cdef decision_t *decide_unseen(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept:
    cdef Decider decider = <Decider>server.decider
    cdef int _i
    server.awaited = 0
    server.units += UNSEEN_UNITS + <uint32_t>(length >> HEAD_BYTES_UNIT_SHIFT)
    for _i in range(INTERRUPTIONS):
        try:
            return decider.decide_head(bytes_from(head, length), hashed)
        except (MemoryError, Waits):
            return NULL
        except BaseException as error:
            if not interrupted(server, error):
                unexpected(server, error, "a request could not be answered")
                return refusal_decide(server, 500, head, length)
    return NULL


cdef section_t *section_learn(server_t *server, const uint8_t *data, size_t length, int minor) noexcept:
    cdef Decider decider = <Decider>server.decider
    server.units += UNSEEN_UNITS + <uint32_t>(length >> HEAD_BYTES_UNIT_SHIFT)
    try:
        return decider.learn_section(bytes_from(data, length), minor)
    except MemoryError:
        return NULL
    except BaseException as error:
        if not interrupted(server, error):
            unexpected(server, error, "a header section could not be prepared")
        return NULL


cdef shape_t *shape_learn(server_t *server, const char *extension, size_t length, int form) noexcept:
    cdef Decider decider = <Decider>server.decider
    server.units += UNSEEN_UNITS
    try:
        return decider.learn_shape(<bytes>extension[:length], form)
    except MemoryError:
        return NULL
    except BaseException as error:
        if not interrupted(server, error):
            unexpected(server, error, "a response's head could not be prepared")
        return NULL


cdef void section_free(section_t *section) noexcept nogil:
    if section != NULL:
        free(section.bytes)
        free(section.log_text)
        free(section)


cdef class Decider:
    """Decides for one server; limits: request.Limits."""

    def __init__(self, Loader loader not None, limits, bytes server_name not None):
        self.loader = loader
        self.limits = limits
        self.server_name = server_name

    cdef decision_t *decide_head(self, bytes head, uint64_t hashed) except NULL:
        """Parse, decide, prepare; remember what lasts. The caller owns what is not DECISION_REMEMBERED."""
        cdef decision_t *decision
        cdef int64_t number
        cdef bint lasting = True        # what is raised before the disk is asked follows from the head alone
        request = None
        self.loader.absent = None
        try:
            request = requests.parse(head, self.limits)
            path = targets.locate(request)
            requests.check_expectation(request)
            lasting = False
            number = self.loader.find(path)
            if number == AWAITED:
                raise Waits
            if number == ABSENT:
                decision = self.refusal(_NOT_FOUND, head, request)
            else:
                choice = selection.decide(request, self.loader.describe(<uint32_t>number), self.s.second)
                decision = self.build(request, <uint32_t>number, choice)
                lasting = choice.lasting
        except responses.Refusal as refusal:
            if refusal.status == 301:
                refusal.fields = [(b"Location", targets.with_slash(request, path))]
            decision = self.refusal(refusal, head, request)
        else:
            if self.loader.absent is not None:
                decision.missing = strdup(PyBytes_AS_STRING(self.loader.absent))
                decision.checked_ns = self.s.now_ns
                lasting = decision.missing != NULL
            elif self.s.log.fd >= 0:
                try:
                    self.note(decision, head, request)
                except BaseException:
                    decision_free(decision)
                    raise
        try:
            if request is not None and not decision.flags & DECISION_LINGER and request.has_body:
                self.await_body(decision, request, head)
                lasting = False
        except BaseException:
            decision_free(decision)
            raise
        # A 503 is about this moment: there was no room for the response.
        if lasting and decision.status != 503 and not self.s.finishing:
            head_remember(self.s, decision, data_of(head), size_of(head), hashed)
        return decision

    cdef int status_of(self, bytes head) except -1:
        self.s.skip_file_open = 0
        self.s.transport = NULL         # nobody is there to wait
        cdef decision_t *decision = self.decide_head(head, siphash13(
            self.s.hash_key, data_of(head), size_of(head)))
        cdef int status = decision.status
        if decision.flags & DECISION_REMEMBERED:
            head_drop(self.s, decision)
        else:
            decision_free(decision)
        return status

    cdef decision_t *blank(self, int status, request, bint close) except NULL:
        cdef decision_t *decision = <decision_t *>calloc(1, sizeof(decision_t))
        if decision == NULL:
            raise MemoryError
        decision.file = NO_FILE
        decision.status = <uint16_t>status
        # The last response says that it is the last (RFC 9112 section 9.6).
        decision.form = responses.CLOSE if close or request is None or self.s.finishing else request.connection
        if decision.form == responses.CLOSE:
            decision.flags |= DECISION_CLOSE
        if close:
            decision.flags |= DECISION_LINGER
        if request is not None and request.method == b"HEAD":
            decision.flags |= DECISION_HEAD_ONLY
        return decision

    cdef decision_t *refusal(self, refusal, bytes head, request) except NULL:
        """A response without a file. request: None if the head could not be parsed."""
        status = refusal.status
        # Whether the client sends the body that it has announced is not known once it gets anything but 100.
        close = refusal.close or (request is not None and requests.waits_for_continue(request))
        cdef decision_t *decision = self.blank(status, request, close)
        cdef int shared = responses.shared_index(status)
        try:
            if shared >= 0:
                decision.shared = <uint8_t>(shared * FULL_FORMS + decision.form + 1)
                if self.s.shared[decision.shared - 1].lent == NULL:
                    self.prepare_refusal(&self.s.shared[decision.shared - 1], status, refusal.fields, decision.form,
                                         counted=False)
            else:
                self.prepare_refusal(&decision.own, status, refusal.fields, decision.form)
            self.note(decision, head, request)
        except responses.Refusal as instead:    # no room for a response of its own
            decision_free(decision)
            if instead.status == status:        # and none for saying so
                raise MemoryError from None
            return self.refusal(instead, head, request)
        except BaseException:
            decision_free(decision)
            raise
        return decision

    cdef decision_t *build(self, request, uint32_t number, choice) except NULL:
        """A response from a file, or about one."""
        cdef file_t *file = &self.s.files[number]
        cdef bint close = choice.status >= 400 and requests.waits_for_continue(request)
        cdef decision_t *decision = self.blank(choice.status, request, close)
        cdef variant_t *variant
        cdef const char *text
        decision.file = number
        decision.generation = file.generation
        try:
            if choice.variant is None:
                self.prepare_refusal(&decision.own, choice.status, choice.fields, decision.form)
                return decision
            decision.variant = 1 if choice.variant.coding else 0
            variant = &file.variant[decision.variant]
            body = b""
            if variant.mapped or choice.length > INLINE_BYTES:
                decision.body_at = choice.offset
                decision.body_length = choice.length
            elif choice.length:
                text = <const char *>variant.body.data + <size_t>choice.offset
                body = text[:<Py_ssize_t>choice.length]
            if choice.whole:
                decision.flags |= DECISION_FULL
                if variant.full[decision.form].lent == NULL:
                    self.prepare(&variant.full[decision.form], 200, choice.fields, decision.form, body, True, number,
                                 True)
                    self.s.held_bytes += variant.full[decision.form].lent.length
                    self.s.full_bytes += variant.full[decision.form].lent.length
            else:
                self.prepare(&decision.own, choice.status, choice.fields, decision.form, body, True, number, False)
        except BaseException:
            decision_free(decision)
            raise
        return decision

    cdef int prepare_shared(self) except -1:
        """The responses with which a connection ends that sent no head, so that they take no Python later."""
        cdef int at
        for index, status in enumerate(responses.SHARED_REFUSALS):
            at = index
            self.s.shared_status[at] = status
            if status not in responses.ENDING_REFUSALS:
                continue
            try:
                self.prepare_refusal(&self.s.shared[at * FULL_FORMS + FORM_CLOSE], status, (), FORM_CLOSE,
                                     counted=False)
            except responses.Refusal:
                raise MemoryError from None
        return 0

    cdef int prepare_refusal(self, ready_t *ready, int status, fields, int form, bint counted=True) except -1:
        body = responses.refusal_body(status)
        self.prepare(ready, status, [*fields, *responses.refusal_fields(status, body)], form, body, counted)
        return 0

    cdef int prepare(self, ready_t *ready, int status, fields, int form, bytes body, bint counted=True,
                     uint32_t keep=NO_FILE, bint whole=False) except -1:
        """counted: against max_response_bytes. keep, whole: see responses_make_room. Raises Refusal(503) where no more
        of them may be made."""
        head = responses.response_head(status, fields, form, self.server_name)
        cdef bytes text = head + body
        cdef lent_t *lent = NULL
        if not counted:
            lent = lent_from_copy(data_of(text), size_of(text))
        elif responses_make_room(self.s, size_of(text), keep, whole):
            lent = counted_copy(self.s, data_of(text), size_of(text))
        if lent == NULL:
            self.s.stats.responses_refused += 1
            raise responses.Refusal(503, close=True)
        ready.lent = lent
        ready.head_length = <uint32_t>len(head)
        ready.date_at = responses.date_offset(status)
        ready.second = -1
        return 0

    cdef int note(self, decision_t *decision, bytes head, request) except -1:
        """Keep what the access log will say."""
        if self.s.log.fd < 0:
            return 0
        line = head.partition(b"\r\n")[0]
        referer = agent = None
        if request is not None:
            referer, agent = request.one(b"referer"), request.one(b"user-agent")
        text, split = accesslog.log_text(line, referer, agent)
        decision.log_text = counted_copy(self.s, data_of(text), size_of(text))
        decision.log_split = split
        if decision.log_text == NULL:
            self.s.log.lost_lines += 1
        return 0

    cdef int await_body(self, decision_t *decision, request, bytes head) except -1:
        """Have the request's body read and discarded before the response, unless the connection ends anyway."""
        decision.head = <uint8_t *>malloc(len(head))
        if decision.head == NULL:
            raise MemoryError
        memcpy(decision.head, PyBytes_AS_STRING(head), len(head))
        decision.head_length = <uint32_t>len(head)
        decision.request_body = request.content_length
        if request.chunked:
            decision.flags |= DECISION_CHUNKED
        if requests.waits_for_continue(request):
            decision.flags |= DECISION_CONTINUE
        return 0

    # ------------------------------------------------------------ for plainheads

    cdef section_t *learn_section(self, bytes text, int minor) except NULL:
        """What request.py makes of a header section behind the request line of a GET or HEAD."""
        cdef section_t *section = <section_t *>calloc(1, sizeof(section_t))
        cdef bytes log = b""
        if section == NULL:
            raise MemoryError
        try:
            request = requests.plain_request(text, minor, self.limits)
            if request is not None:
                section.is_plain = 1
                section.form = request.connection
                section.closes = section.form == responses.CLOSE
                section.accepts_gzip = selection.accepts_gzip(request)
                log, split = accesslog.log_text(b"", request.one(b"referer"), request.one(b"user-agent"))
                log = log[split:]
            section.minor = <uint8_t>minor
            section.length = <uint32_t>len(text)
            section.bytes = <uint8_t *>malloc(len(text))
            section.log_length = <uint32_t>len(log)
            section.log_text = <uint8_t *>malloc(len(log) + 1)
            if section.bytes == NULL or section.log_text == NULL:
                raise MemoryError
            memcpy(section.bytes, PyBytes_AS_STRING(text), len(text))
            memcpy(section.log_text, PyBytes_AS_STRING(log), len(log))
        except BaseException:
            section_free(section)
            raise
        return section

    cdef shape_t *learn_shape(self, bytes extension, int form) except? NULL:
        """The head of a 200 to a file with this extension. NULL: it is too long."""
        cdef shape_t *shape
        cdef uint8_t *text
        parts = selection.head_in_parts(extension, form, self.server_name)
        cdef bytes whole = b"".join(parts)
        if len(whole) > SHAPE_BYTES:
            return NULL
        text = <uint8_t *>malloc(len(whole))
        if text == NULL:
            raise MemoryError
        memcpy(text, PyBytes_AS_STRING(whole), len(whole))
        if self.s.shape_count < SHAPES_MAX:
            shape = &self.s.shapes[self.s.shape_count]
            self.s.shape_count += 1
        else:
            shape = &self.s.shapes[self.s.shape_hand]
            self.s.shape_hand = (self.s.shape_hand + 1) % SHAPES_MAX
            free(shape.text)
        shape.text = text
        for index, part in enumerate(parts):
            shape.parts[<int>index] = <uint32_t>len(part)
        memcpy(shape.extension, PyBytes_AS_STRING(extension), len(extension))
        shape.extension_length = <uint8_t>len(extension)
        shape.form = <uint8_t>form
        shape.date_at = responses.date_offset(200)
        return shape
