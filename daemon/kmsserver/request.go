package kmsserver

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

const (
	apiVersion = "2016-01-20"
	maxBody    = 64 << 10
	maxHeader  = 64 << 10
)

// request is an action with its parameters and the claim of who asks for it.
type request struct {
	action string
	params map[string]string
	claim  claim
}

// parameterForm keeps canonical forms simple: a name that needs no escaping.
var parameterForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// common are the parameters that are not the action's.
var common = []string{
	"Action", "Version", "Format", "AccessKeyId", "Signature", "SignatureMethod", "SignatureVersion",
	"SignatureNonce", "Timestamp", "RegionId",
}

// parseRequest takes a request apart. Nothing of it is verified.
func parseRequest(r *http.Request) (*request, error) {
	if r.Method != http.MethodPost && r.Method != http.MethodGet {
		return nil, faultf(codeMethod, "use POST or GET")
	}
	if r.URL.Path != "/" {
		return nil, faultf(codeAction, "the path of every action is /")
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	query, err := parseParameters(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	form, err := parseForm(r, body)
	if err != nil {
		return nil, err
	}
	all, err := merge(query, form)
	if err != nil {
		return nil, err
	}
	q := &request{params: all}
	if _, signed := all["Signature"]; signed {
		err = q.readRPC(r.Method)
	} else {
		err = q.readHeaders(r, query, body)
	}
	if err != nil {
		return nil, err
	}
	return q, q.checkCommon(r)
}

// readBody bounds what is read.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return nil, faultf(codeParse, "the body is longer than %d bytes", maxBody)
	}
	if err != nil {
		return nil, faultf(codeParse, "the body cannot be read")
	}
	return body, nil
}

// parseParameters reads a query string in which no name is there twice.
func parseParameters(text string) (map[string]string, error) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, faultf(codeParse, "the parameters are not encoded as a query string")
	}
	params := make(map[string]string, len(values))
	for name, list := range values {
		if !parameterForm.MatchString(name) || len(list) != 1 {
			return nil, faultf(codeParse, "a parameter is there twice, or its name is not letters, digits and ._-")
		}
		params[name] = list[0]
	}
	return params, nil
}

func parseForm(r *http.Request, body []byte) (map[string]string, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/x-www-form-urlencoded" {
		return nil, faultf(codeParse, "parameters are in the query string or in a form")
	}
	return parseParameters(string(body))
}

func merge(query, form map[string]string) (map[string]string, error) {
	all := maps.Clone(query)
	for name, value := range form {
		if _, twice := all[name]; twice {
			return nil, faultf(codeParse, "parameter %s is there twice", name)
		}
		all[name] = value
	}
	return all, nil
}

// checkCommon checks what is the same for all actions, and takes it away.
func (q *request) checkCommon(r *http.Request) error {
	version := q.params["Version"]
	if v := r.Header.Get("X-Acs-Version"); version == "" {
		version = v
	}
	format := q.params["Format"]
	for _, name := range common {
		delete(q.params, name)
	}
	switch {
	case q.action == "":
		return faultf(codeMissing, "the parameter Action is missing")
	case version != apiVersion:
		return faultf(codeVersion, "this server speaks version %s", apiVersion)
	case format != "" && !strings.EqualFold(format, "json"):
		return faultf(codeInvalid, "replies are in the format JSON")
	}
	return nil
}
