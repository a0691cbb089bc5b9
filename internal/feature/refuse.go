package feature

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/vswitch/vswitch/api"
)

// statuses maps the API's error codes to HTTP statuses.
var statuses = map[string]int{
	api.CodeInvalid:  http.StatusBadRequest,
	api.CodeNotFound: http.StatusNotFound,
	api.CodeMethod:   http.StatusMethodNotAllowed,
	api.CodeExists:   http.StatusConflict,
	api.CodeGone:     http.StatusConflict,
	api.CodeInUse:    http.StatusConflict,
	api.CodeConflict: http.StatusConflict,
	api.CodeExpired:  http.StatusGone,
	api.CodeFailed:   http.StatusInternalServerError,
	api.CodeBusy:     http.StatusServiceUnavailable,
	api.CodeStopping: http.StatusServiceUnavailable,
}

// Refuse answers a request with an error, as a Route's Serve does before it has written
// anything.
func Refuse(w http.ResponseWriter, err error) {
	var e *api.Error
	if !errors.As(err, &e) {
		e = &api.Error{Code: api.CodeFailed, Message: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statuses[e.Code])
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	_ = out.Encode(e) // fails if the client left
}
