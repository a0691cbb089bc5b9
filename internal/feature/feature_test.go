package feature

import (
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// A feature may embed the Host. That must give it no ability: the daemon would call the
// feature, which calls the daemon, for ever.
func TestHostHasNoAbility(t *testing.T) {
	host := reflect.TypeFor[Host]()
	for _, ability := range []reflect.Type{
		reflect.TypeFor[Configured](), reflect.TypeFor[Linked](), reflect.TypeFor[Removed](), reflect.TypeFor[Framed](), reflect.TypeFor[Queued](),
		reflect.TypeFor[Topology](), reflect.TypeFor[Described](), reflect.TypeFor[Kept](), reflect.TypeFor[Moved](), reflect.TypeFor[Explained](),
		reflect.TypeFor[Heir](),
	} {
		if host.Implements(ability) {
			t.Errorf("a Host is %v", ability)
		}
	}
}

// A body is one JSON value whose keys are known, in their case, and given once.
func TestBody(t *testing.T) {
	type request struct {
		Port string `json:"port"`
		VLAN uint16 `json:"vlan"`
	}
	for body, want := range map[string]string{
		`{"port":"vm0","vlan":7}`:   "",
		``:                          "the request has no body; /v1/openapi.yaml has what belongs there",
		" \n":                       "the request has no body; /v1/openapi.yaml has what belongs there",
		`{`:                         "the request's body is not understood: unexpected EOF",
		`[]`:                        "the request's body is not understood: there is an array in place of an object",
		`{"port":"a"}{}`:            "the request's body has more than one JSON value",
		`{"prot":"a"}`:              `the request's body is not understood: there is no key "prot"`,
		`{"Port":"a"}`:              `the request's body is not understood: there is no key "Port"`,
		`{"port":"a","PORT":"b"}`:   `the request's body is not understood: there is no key "PORT"`,
		`{"port":"a","port":"b"}`:   `the request's body is not understood: the key "port" is there twice in one object`,
		`{"port":"a","vlan":"7"}`:   "the request's body is not understood: vlan: there is a string in place of an integer",
		`{"port":"a","vlan":70000}`: "the request's body is not understood: vlan: 70000 is out of range",
	} {
		r := httptest.NewRequest("POST", "/v1/x", strings.NewReader(body))
		got, err := Body[request](r)
		switch {
		case want == "" && (err != nil || got != request{"vm0", 7}):
			t.Errorf("%s: %+v, %v", body, got, err)
		case want != "" && (err == nil || err.Error() != want):
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}
