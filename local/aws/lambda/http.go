package lambda

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

const (
	pathPrefix = "/2015-03-31/functions/"
	pathSuffix = "/invocations"
)

// Invokes reports whether a request is for the Invoke API.
func Invokes(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, pathPrefix) && strings.HasSuffix(r.URL.Path, pathSuffix)
}

// ServeHTTP answers Invoke: POST /2015-03-31/functions/{name or ARN}/invocations.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, code, err := s.serve(r)
	id := out.RequestID
	if id == "" {
		id = uuid()
	}
	h := w.Header()
	h.Set("X-Amzn-Requestid", id)
	h.Set("Content-Type", "application/json")
	if err != nil {
		var refused *Error
		if !errors.As(err, &refused) {
			s.log.Error("invoke", "error", err)
			refused = &Error{"ServiceException", http.StatusInternalServerError, err.Error()}
		}
		h.Set("X-Amzn-Errortype", refused.Code)
		kind := "User"
		if refused.Status >= 500 {
			kind = "Service"
		}
		w.WriteHeader(refused.Status)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": refused.Code, "Type": kind, "Message": refused.Message, "message": refused.Message})
		return
	}
	if code == http.StatusOK {
		h.Set("X-Amz-Executed-Version", latest)
		if out.FunctionError != "" {
			h.Set("X-Amz-Function-Error", out.FunctionError)
		}
	}
	w.WriteHeader(code)
	if code != http.StatusNoContent {
		_, _ = w.Write(out.Payload)
	}
}

func (s *Server) serve(r *http.Request) (Result, int, error) {
	if !Invokes(r) || r.Method != http.MethodPost {
		return Result{}, 0, &Error{"UnknownOperationException", http.StatusNotFound, "the local Lambda has Invoke, not " + r.Method + " " + r.URL.Path}
	}
	id, err := url.PathUnescape(strings.TrimSuffix(strings.TrimPrefix(r.URL.EscapedPath(), pathPrefix), pathSuffix))
	if err != nil {
		return Result{}, 0, &Error{"ValidationException", http.StatusBadRequest, "the path cannot be read"}
	}
	f, refused := s.find(id)
	if refused != nil {
		return Result{}, 0, refused
	}
	kind := r.Header.Get("X-Amz-Invocation-Type")
	limit := int64(MaxPayload)
	if kind == "Event" {
		limit = MaxEvent
	}
	payload, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, limit))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return Result{}, 0, &Error{"RequestTooLargeException", http.StatusRequestEntityTooLarge, "Request must be smaller than " + map[bool]string{true: "1048576", false: "6291456"}[kind == "Event"] + " bytes for the InvokeFunction operation"}
	}
	if err != nil {
		return Result{}, 0, &Error{"InvalidRequestContentException", http.StatusBadRequest, "the payload cannot be read"}
	}
	if len(payload) == 0 {
		payload = []byte("{}")
	}
	if !json.Valid(payload) {
		return Result{}, 0, &Error{"InvalidRequestContentException", http.StatusBadRequest, "Could not parse request body into json"}
	}
	in := invocation{id: uuid(), payload: payload, trace: r.Header.Get("X-Amzn-Trace-Id")}
	if c := r.Header.Get("X-Amz-Client-Context"); c != "" {
		b, err := base64.StdEncoding.DecodeString(c)
		if err != nil || !json.Valid(b) {
			return Result{}, 0, &Error{"InvalidRequestContentException", http.StatusBadRequest, "Client context must be a valid Base64-encoded JSON object."}
		}
		in.clientContext = string(b)
	}
	switch kind {
	case "", "RequestResponse":
		out, err := s.run(r.Context(), f, in)
		return out, http.StatusOK, err
	case "Event":
		s.wg.Go(func() { s.event(f, in) })
		return Result{RequestID: in.id}, http.StatusAccepted, nil
	case "DryRun":
		return Result{RequestID: in.id}, http.StatusNoContent, nil
	default:
		return Result{}, 0, &Error{"InvalidParameterValueException", http.StatusBadRequest, "unknown invocation type " + kind}
	}
}
