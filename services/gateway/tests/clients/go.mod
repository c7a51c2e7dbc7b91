module liaison.example.ca/clients

go 1.26
