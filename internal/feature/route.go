package feature

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/vswitch/vswitch/api"
)

// Route is a call of the API. It has either Handle or Serve. While the feature is off, the
// daemon answers it with an error.
type Route struct {
	Method, Path string // as in http.ServeMux
	ID           string // operationId in openapi.yaml; by default made of method and path
	Help         string // what it does, in one line

	// Request and Answer are zero values of what the JSON of both is read from and written
	// as; nil: it has none. Query describes the parameters of the query as a settings struct.
	// openapi.yaml is generated from these. Type is the answer's media type if it is not JSON.
	Request, Answer, Query any
	Type                   string

	// Handle answers with a value, sent as JSON, or nil. The daemon calls it with its turn,
	// and has read the request's body, see Body. If Change is true, the State of the feature
	// is on disk before the answer is sent; if that fails, the daemon takes the change back
	// with Restore.
	Handle func(Instance, *http.Request) (any, error)
	Change bool

	// Serve answers by itself, as with a stream. It is called without the turn.
	Serve func(Instance, http.ResponseWriter, *http.Request)
}

// Body decodes a request's body, which is one JSON value without unknown keys.
func Body[T any](r *http.Request) (t T, err error) {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, api.Errorf(api.CodeInvalid, "the request's body is not understood: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return t, api.Errorf(api.CodeInvalid, "the request's body has more than one JSON value")
	}
	return t, nil
}
