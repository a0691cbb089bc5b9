package feature

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/setting"
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

	// Serve answers by itself, as with a stream. It is called without the turn, and must not
	// assume that the turn comes soon. Before it has written anything, it may answer with
	// Refuse.
	Serve func(Instance, http.ResponseWriter, *http.Request)
}

// CheckQuery returns an error unless a request's query has only parameters that a settings struct describes, each once
// or as a list; nil describes none. The daemon calls it for every route.
func CheckQuery(r *http.Request, of any) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return api.Errorf(api.CodeInvalid, "the query %q is not understood: %w", r.URL.RawQuery, err)
	}
	var keys []string
	if of != nil {
		for _, f := range setting.Fields(of) {
			keys = append(keys, f.Key)
			if len(query[f.Key]) > 1 && !f.List() {
				return api.Errorf(api.CodeInvalid, "the query has %s twice; give it once", f.Key)
			}
			delete(query, f.Key)
		}
	}
	unknown := slices.Sorted(maps.Keys(query))
	switch {
	case unknown == nil:
		return nil
	case keys == nil:
		return api.Errorf(api.CodeInvalid, "the query has %q; this call takes no query", unknown[0])
	}
	return api.Errorf(api.CodeInvalid, "the query has %q; this call takes %s", unknown[0], strings.Join(keys, ", "))
}

// Query reads a request's query, which T describes as a settings struct.
func Query[T any](r *http.Request) (t T, err error) {
	if err := CheckQuery(r, t); err != nil {
		return t, err
	}
	given := setting.Patch{}
	query := r.URL.Query()
	for _, f := range setting.Fields(t) {
		texts, ok := query[f.Key]
		if !ok {
			continue
		}
		if given[f.Key], err = f.ReadFlag(texts...); err != nil {
			return t, api.Errorf(api.CodeInvalid, "%s: %w", f.Key, err)
		}
	}
	all, err := setting.Merge(t, given)
	if err != nil {
		return t, api.Errorf(api.CodeInvalid, "%w", err)
	}
	return all.(T), nil
}

// Values writes a settings struct as a query that Query reads.
func Values(of any) url.Values {
	values := url.Values{}
	for _, f := range setting.Fields(of) {
		if f.IsZero(of) {
			continue
		}
		v := reflect.ValueOf(f.Get(of))
		if v.Kind() != reflect.Slice {
			values.Add(f.Key, f.FlagText(f.Get(of)))
			continue
		}
		for i := range v.Len() {
			values.Add(f.Key, fmt.Sprint(v.Index(i).Interface()))
		}
	}
	return values
}

// ReadBody reads a request's body. Its error is an answer.
func ReadBody(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(r.Body)
	if e := (*http.MaxBytesError)(nil); errors.As(err, &e) {
		return nil, api.Errorf(api.CodeInvalid, "the request's body is too long; send at most %d bytes", e.Limit)
	} else if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "the request's body cannot be read: %w", err)
	}
	return b, nil
}

// Body decodes a request's body, which is one JSON value without unknown keys, each given once.
func Body[T any](r *http.Request) (t T, err error) {
	b, err := ReadBody(r)
	if err != nil {
		return t, err
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return t, api.Errorf(api.CodeInvalid, "the request has no body; /v1/openapi.yaml has what belongs there")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, api.Errorf(api.CodeInvalid, "the request's body is not understood: %w", setting.Plain(err))
	}
	if _, err := d.Token(); err != io.EOF {
		return t, api.Errorf(api.CodeInvalid, "the request's body has more than one JSON value")
	}
	err = setting.CheckKeys(b)
	if key := setting.OtherCase(b, reflect.TypeFor[T]()); key != "" && err == nil {
		err = fmt.Errorf("there is no key %q", key)
	}
	if err != nil {
		return t, api.Errorf(api.CodeInvalid, "the request's body is not understood: %w", err)
	}
	return t, nil
}
